"""The part of steering that runs inside vLLM's worker processes, next to the model.

What is added everywhere becomes a bias of `o_proj` or `down_proj`, written in place: no hook, so it holds under
torch.compile, CUDA graphs and tensor parallelism (both are row-parallel layers, whose bias vLLM adds on rank 0 alone).
What is added under a condition is done by hooks, which only run in eager mode.
"""

from typing import Any

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor, nn
from vllm.platforms import current_platform

from thinksteer.records import EVERYWHERE, Condition
from thinksteer.steering import Gate, adder
from thinksteer.thinking import Follower

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as Worker
else:
    from vllm.v1.worker.gpu_worker import Worker

EXTRA = "thinksteer"  # the key of SamplingParams.extra_args under which a request says its number and prompt length
PROJECTIONS = {"attn_out": ("self_attn", "o_proj"), "mlp_out": ("mlp", "down_proj"), "block_out": ("mlp", "down_proj")}


class SteerableWorker(Worker):
    """A vLLM worker whose model can be steered, and steered otherwise, without loading it again."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        """Biases are made here, before the model is compiled, so that compiled graphs read them."""
        super().load_model(*args, **kwargs)
        self._hooks: list[Any] = []
        self._masks: dict[Condition, Tensor] = {}
        self._gates: dict[int, Gate] = {}
        self._biases: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}  # (layer, site) -> bias, the model's own value
        for index, layer in self._layers():
            for site, (block, name) in PROJECTIONS.items():
                projection = getattr(getattr(layer, block, None), name, None)
                if projection is None:  # a mixture of experts
                    continue
                if projection.bias is None:
                    zeros = torch.zeros(self._hidden_size, dtype=projection.params_dtype, device=self.device)
                    projection.bias = nn.Parameter(zeros, requires_grad=False)
                self._biases[index, site] = projection.bias.data, projection.bias.data.clone()

    def steer(self, vectors: bytes, wheres: list[list[Any]], delimiters: list[Any]) -> list[str]:
        """Replaces the steering by these vectors (safetensors, `<layer>.<site>.<index of its condition>` -> `[D]`).

        `wheres`: each condition as [tokens or None, in_thinking]; `delimiters`: opening ids, closing ids, opened in
        the prompt. Returns the names of the vectors that have their place on this worker.
        """
        for hook in self._hooks:
            hook.remove()
        for bias, own in self._biases.values():
            bias.copy_(own)
        self._hooks, self._masks, self._gates, self._delimiters = [], {}, {}, delimiters
        conditions = [Condition(None if ids is None else frozenset(ids), inside) for ids, inside in wheres]
        layers, placed = dict(self._layers()), []
        for name, vector in load(vectors).items():
            layer, site, index = name.split(".")
            where = conditions[int(index)]
            if where == EVERYWHERE and (int(layer), site) in self._biases:
                bias, _ = self._biases[int(layer), site]
                bias.add_(vector.to(bias.device, bias.dtype))
                placed.append(name)
            elif where != EVERYWHERE and int(layer) in layers:
                self._hook(layers[int(layer)], site, vector, where)
                placed.append(name)
        self._conditions = [where for where in conditions if where != EVERYWHERE]
        if self._conditions:
            model = self.model_runner.get_model()
            self._hooks.append(model.register_forward_pre_hook(self._set_masks, with_kwargs=True))
        return placed

    def steered_positions(self, numbers: list[int]) -> list[int]:
        """At how many positions of each of these requests a conditional edit has acted; they are then forgotten."""
        return [self._gates.pop(number).count for number in numbers]

    def _layers(self) -> list[tuple[int, nn.Module]]:
        """The decoder layers that this worker holds, by number (pipeline parallelism leaves it some of them)."""
        layers = self.model_runner.get_model().model.layers
        return [(index, layer) for index, layer in enumerate(layers) if hasattr(layer, "self_attn")]

    @property
    def _hidden_size(self) -> int:
        return self.model_config.get_hidden_size()

    def _hook(self, layer: nn.Module, site: str, vector: Tensor, where: Condition) -> None:
        add = adder(vector.to(self.device, self.model_config.dtype), where, self._masks)

        def after(module: nn.Module, inputs: tuple, output: Any) -> Any:
            # A layer gives (hidden states, residual), whose sum is the block's output: one of them is changed.
            return (add(output[0]), *output[1:]) if isinstance(output, tuple) else add(output)

        place = {"attn_out": "self_attn", "mlp_out": "mlp", "block_out": ""}[site]
        self._hooks.append(layer.get_submodule(place).register_forward_hook(after))

    def _set_masks(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Before every pass: where each condition holds among the pass's tokens, those of all requests in a row."""
        runner, rows = self.model_runner, [[] for _ in self._conditions]
        batch = runner.input_batch
        begins = batch.num_computed_tokens_cpu[: batch.num_reqs].tolist()
        counts = np.diff(runner.query_start_loc.np[: batch.num_reqs + 1]).tolist()
        for index, request in enumerate(batch.req_ids):
            number, prompt_length = runner.requests[request].sampling_params.extra_args[EXTRA]
            if number not in self._gates:
                self._gates[number] = Gate(self._conditions, Follower(prompt_length, *self._delimiters))
            end = begins[index] + counts[index]
            held = self._gates[number].mask(batch.token_ids_cpu[index], begins[index], end)
            for row, part in zip(rows, held, strict=True):
                row += part
        for where, row in zip(self._conditions, rows, strict=True):
            padding = [False] * (len(kwargs["input_ids"]) - len(row))
            self._masks[where] = torch.tensor(row + padding, device=self.device)
