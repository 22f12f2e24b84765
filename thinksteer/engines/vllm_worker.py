"""The part of steering that runs inside vLLM's worker processes, next to the model.

What is added everywhere becomes a bias of `o_proj` or `down_proj`, written in place: no hook, so it holds under
torch.compile, CUDA graphs and tensor parallelism (both are row-parallel layers, whose bias vLLM adds on rank 0 alone).
What depends on the token or on the activation is done by hooks, which only run in eager mode.
"""

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor, nn
from vllm.platforms import current_platform

from thinksteer.engines.sampling import least_kept
from thinksteer.layout import oddity
from thinksteer.records import EVERYWHERE, Condition
from thinksteer.steering import Change, Gate, changer
from thinksteer.thinking import Follower, Marks

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker

    class Worker(CPUWorker):
        """Samples without sorting the vocabulary, and draws nothing from a seeded request's generator until all of its
        prompt is read.

        vLLM samples a token behind every part of a prompt and discards it but for the last, then rewinds the generator
        by an offset, which a CPU's has not. Here those rows draw from the common generator instead.
        """

        def load_model(self, *args: Any, **kwargs: Any) -> None:
            super().load_model(*args, **kwargs)
            sampler = self.model_runner.sampler.topk_topp_sampler
            own = sampler.forward
            sampler.forward = lambda logits, generators, k, p: (
                own(logits, generators, k, None) if p is None else own(nucleus(logits, k, p), generators, None, None)
            )

        def sample_tokens(self, *args: Any) -> Any:
            runner = self.model_runner
            unread = np.flatnonzero(runner.discard_request_mask.np[: runner.input_batch.num_reqs]).tolist()
            generators = runner.input_batch.generators
            kept = {row: generators.pop(row) for row in unread if row in generators}
            output = super().sample_tokens(*args)
            generators.update(kept)
            return output
else:
    from vllm.v1.worker.gpu_worker import Worker

EXTRA = "thinksteer"  # the key of SamplingParams.extra_args under which a request says its number and prompt length
PROJECTIONS = {"attn_out": ("self_attn", "o_proj"), "mlp_out": ("mlp", "down_proj"), "block_out": ("mlp", "down_proj")}


def nucleus(logits: Tensor, k: Tensor | None, p: Tensor) -> Tensor:
    """Logits `[n, V]`, -inf at the tokens that each row's top_k (None: off) and top_p leave out; changed in place.

    vLLM's own way on a CPU sorts whole rows: 440 ms for 64 rows of Qwen2.5's vocabulary, more than the rest of the step
    of a model of half a billion parameters.
    """
    settings = list(zip([0] * len(logits) if k is None else k.tolist(), p.tolist(), strict=True))
    for one in {*settings}:
        rows = slice(None) if len({*settings}) == 1 else [row for row, other in enumerate(settings) if other == one]
        probabilities = logits[rows].softmax(-1)
        logits[rows] = logits[rows].masked_fill_(probabilities < least_kept(probabilities, *one), -torch.inf)
    return logits


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

    def steer(self, tensors: bytes, wheres: list[list[Any]], marks: list[Any]) -> list[str]:
        """Replaces the steering by these changes: safetensors, `<layer>.<site>.<index of its condition>` -> their rows
        (`Change.of_rows`).

        `wheres`: each condition as [tokens or None, in_thinking, responding, text]; `marks`: the opening delimiter, the
        closing one, and the text of each token, all as bytes (see `Marks`). Returns the names of the changes that have
        their place on this worker.
        """
        for hook in self._hooks:
            hook.remove()
        for bias, own in self._biases.values():
            bias.copy_(own)
        self._hooks, self._masks, self._gates = [], {}, {}
        opening, closing, texts = marks
        self._marks = Marks(opening, closing, defaultdict(bytes, enumerate(texts)))
        conditions = [Condition(None if ids is None else frozenset(ids), *rest) for ids, *rest in wheres]
        wanted: dict[tuple[int, str], dict[Condition, Change]] = {}
        names: dict[tuple[int, str], list[str]] = {}
        for name, rows in load(tensors).items():
            layer, site, index = name.split(".")
            wanted.setdefault((int(layer), site), {})[conditions[int(index)]] = Change.of_rows(rows)
            names.setdefault((int(layer), site), []).append(name)
        layers, placed = dict(self._layers()), []
        for (layer, site), parts in wanted.items():
            bias, _ = self._biases.get((layer, site), (None, None))
            if bias is not None and parts.keys() == {EVERYWHERE} and not len(parts[EVERYWHERE].read):
                bias.add_(parts[EVERYWHERE].added.to(bias))
            elif layer in layers and self.model_config.enforce_eager:
                self._hook(layers[layer], site, parts)
            else:
                continue
            placed += names[layer, site]
        self._conditions = [where for where in conditions if where != EVERYWHERE]
        if self._conditions:
            model = self.model_runner.get_model()
            self._hooks.append(model.register_forward_pre_hook(self._set_masks, with_kwargs=True))
        return placed

    def steered_positions(self, numbers: list[int]) -> list[int]:
        """At how many positions of each of these requests a conditional edit has acted; they are then forgotten."""
        return [self._gates.pop(number).count for number in numbers]

    def _layers(self) -> list[tuple[int, nn.Module]]:
        """The decoder layers that this worker holds (pipeline parallelism leaves it some of them), by number; none of
        them where it is not known how their parts add up."""
        layers, config = self.model_runner.get_model().model.layers, self.model_config.hf_text_config
        return [(index, layer) for index, layer in enumerate(layers) if oddity(layer, config) is None]

    @property
    def _hidden_size(self) -> int:
        return self.model_config.get_hidden_size()

    def _hook(self, layer: nn.Module, site: str, parts: dict[Condition, Change]) -> None:
        like = torch.empty(0, dtype=self.model_config.dtype, device=self.device)
        change = changer({where: one.to(like) for where, one in parts.items()}, self._masks)

        # A layer takes and gives (hidden states, residual), whose sum is the residual stream: one of them is changed.
        def before(module: nn.Module, inputs: tuple) -> tuple:
            positions, hidden, residual, *more = inputs
            return positions, change(hidden, residual), residual, *more

        def after(module: nn.Module, inputs: tuple, output: Any) -> Any:
            return (change(*output), *output[1:]) if isinstance(output, tuple) else change(output)

        if site == "block_in":
            self._hooks.append(layer.register_forward_pre_hook(before))
        else:
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
                self._gates[number] = Gate(self._conditions, Follower(prompt_length, self._marks))
            end = begins[index] + counts[index]
            held = self._gates[number].mask(batch.token_ids_cpu[index], begins[index], end)
            for row, part in zip(rows, held, strict=True):
                row += part
        for where, row in zip(self._conditions, rows, strict=True):
            padding = [False] * (len(kwargs["input_ids"]) - len(row))
            self._masks[where] = torch.tensor(row + padding, device=self.device)
