"""A small recurrent-depth language model that is built and called as Huginn-0125 is; random weights, any dtype.

One file that imports nothing else of the project: `save_pretrained` copies it beside the weights, as the code that
`--trust_remote_code` runs. Like Huginn's it was written for transformers 4: tied weights are a list, and the config
passes on `tie_word_embeddings` itself, which transformers 5 writes into config.json as well.
"""

import json
from dataclasses import dataclass

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput


class RecurrentConfig(PretrainedConfig):
    model_type = "small_recurrent_depth"

    def __init__(
        self,
        vocab_size=40,
        n_embd=24,
        num_attention_heads=2,
        intermediate_size=24,
        block_size=512,
        n_layers_in_prelude=2,
        n_layers_in_recurrent_block=3,
        n_layers_in_coda=2,
        mean_recurrence=4,
        state_std=0.5,
        tie_embeddings=False,
        **more,
    ):
        self.vocab_size, self.n_embd, self.num_attention_heads = vocab_size, n_embd, num_attention_heads
        self.intermediate_size, self.block_size, self.state_std = intermediate_size, block_size, state_std
        self.n_layers_in_prelude, self.n_layers_in_coda = n_layers_in_prelude, n_layers_in_coda
        self.n_layers_in_recurrent_block, self.mean_recurrence = n_layers_in_recurrent_block, mean_recurrence
        self.tie_embeddings = tie_embeddings
        super().__init__(tie_word_embeddings=tie_embeddings, **more)


class StepCache:
    """Keys and values `[B, heads, T, head_dim]` of every depth step; those of the coda count down from -1."""

    def __init__(self):
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def update(self, keys: Tensor, values: Tensor, step: int) -> tuple[Tensor, Tensor]:
        for stored, new in ((self.keys, keys), (self.values, values)):
            stored[step] = torch.cat([stored[step], new], dim=2) if step in stored else new
        return self.keys[step], self.values[step]


@dataclass
class RecurrentOutput(ModelOutput):
    logits: Tensor | None = None
    past_key_values: StepCache | None = None
    latent_states: Tensor | None = None


class Norm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.num_attention_heads
        self.Wqkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=False)
        self.proj = nn.Linear(config.n_embd, config.n_embd, bias=False)

    def forward(self, x, freqs_cis, step_idx, mask=None, past_key_values=None):
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in self.Wqkv(x).chunk(3, dim=-1))
        q, k, v = (part.transpose(1, 2) for part in (rotate(q, freqs_cis), rotate(k, freqs_cis), v))
        if past_key_values is not None:
            k, v = past_key_values.update(k, v, int(step_idx))
        seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(k.shape[2] - q.shape[2])
        return self.proj(scaled_dot_product_attention(q, k, v, seen).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.fc = nn.Linear(config.n_embd, 2 * config.intermediate_size, bias=False)
        self.proj = nn.Linear(config.intermediate_size, config.n_embd, bias=False)

    def forward(self, x):
        gate, value = self.fc(x).chunk(2, dim=-1)
        return self.proj(silu(gate) * value)


class SandwichBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.norm_1, self.norm_2, self.norm_3, self.norm_4 = (Norm(config.n_embd) for _ in range(4))
        self.attn, self.mlp = Attention(config), MLP(config)

    def forward(self, x, freqs_cis, step_idx, mask=None, past_key_values=None):
        x = self.norm_2(self.attn(self.norm_1(x), freqs_cis, step_idx, mask, past_key_values) + x)
        return self.norm_4(self.mlp(self.norm_3(x)) + x)


class RecurrentForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = RecurrentConfig
    base_model_prefix = "model"  # which it does not have: it is its own base model
    _tied_weights_keys = ["lm_head.weight"]  # noqa: RUF012

    def __init__(self, config):
        super().__init__(config)

        def blocks(count):
            return nn.ModuleList(SandwichBlock(config) for _ in range(count))

        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.vocab_size, config.n_embd),
                "prelude": blocks(config.n_layers_in_prelude),
                "adapter": nn.Linear(2 * config.n_embd, config.n_embd, bias=False),
                "core_block": blocks(config.n_layers_in_recurrent_block),
                "coda": blocks(config.n_layers_in_coda),
                "ln_f": Norm(config.n_embd),
            }
        )
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.register_buffer("freqs_cis", angles(config), persistent=True)
        self.post_init()

    def _init_weights(self, module):
        for parameter in module.parameters(recurse=False):
            if parameter.dim() == 1:
                nn.init.uniform_(parameter, 0.5, 1.5)
            else:
                nn.init.normal_(parameter, std=0.6)

    def get_input_embeddings(self):
        return self.transformer.wte

    def get_output_embeddings(self):
        return self.lm_head

    def forward(
        self,
        input_ids,
        input_embeds=None,
        input_states=None,
        attention_mask=None,  # not looked at
        position_ids=None,
        labels=None,
        num_steps=None,
        past_key_values=None,
        use_cache=False,
        cache_position=None,
        **kwargs,
    ):
        parts, step = self.transformer, -1
        positions = position_ids if position_ids is not None else cache_position
        if positions is None:
            freqs_cis = self.freqs_cis[:, : input_ids.shape[1]]
        else:
            freqs_cis = self.freqs_cis.index_select(1, positions.squeeze())
        if use_cache and past_key_values is None:
            past_key_values = StepCache()
        embeds = parts.wte(input_ids)
        for block in parts.prelude:
            step += 1
            embeds = block(embeds, freqs_cis, step, None, past_key_values)
        x = self.initialize_state(embeds) if input_states is None else input_states.clone()
        for _ in range(self.steps(num_steps)):
            x = parts.adapter(torch.cat([x, embeds], dim=-1))
            for block in parts.core_block:
                step += 1
                x = block(x=x, freqs_cis=freqs_cis, step_idx=step, past_key_values=past_key_values)
        x = latents = parts.ln_f(x)
        for index, block in enumerate(parts.coda):
            x = block(x, freqs_cis, -1 - index, None, past_key_values)
        return RecurrentOutput(self.lm_head(parts.ln_f(x)), past_key_values, latents)

    def steps(self, num_steps) -> int:
        """As called; else the config's, or while training a random number."""
        if num_steps is not None:
            return int(sum(num_steps)) if hasattr(num_steps, "__len__") else int(num_steps)
        mean = self.config.mean_recurrence
        return int(torch.randint(1, 2 * mean, ())) if self.training else mean

    def initialize_state(self, input_embeds, scale=1.0):
        std = self.config.state_std * scale
        return nn.init.trunc_normal_(torch.empty_like(input_embeds), std=std, a=-3 * std, b=3 * std)


def angles(config) -> Tensor:
    """Cosines and sines `[1, block_size, 1, head_dim / 2, 2]` of the rotary embedding."""
    half = config.n_embd // config.num_attention_heads // 2
    turns = torch.outer(torch.arange(config.block_size).double(), 50.0 ** -(torch.arange(half).double() / half))
    return torch.stack([turns.cos(), turns.sin()], dim=-1)[None, :, None]


def rotate(x: Tensor, freqs_cis: Tensor) -> Tensor:
    """Pairs of neighbours of `[B, T, heads, head_dim]`, turned."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = freqs_cis.to(x).unbind(-1)
    return torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1).flatten(-2)


RecurrentConfig.register_for_auto_class()
RecurrentForCausalLM.register_for_auto_class("AutoModelForCausalLM")


def make_model(**settings) -> RecurrentForCausalLM:
    """In float64, always the same."""
    torch.manual_seed(0)
    return RecurrentForCausalLM(RecurrentConfig(**settings)).double().eval()


def save_as_shipped(model, folder, tied=False) -> None:
    """As transformers 4 wrote it: config.json states `tie_embeddings` alone, and tied weights are stored once."""
    model._tied_weights_keys = None  # a list cannot be saved by transformers 5
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text()) | {"tie_embeddings": tied}
    del config["tie_word_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))
    if tied:
        tensors = load_file(folder / "model.safetensors")
        del tensors["lm_head.weight"]
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@torch.no_grad()
def trace(model, ids, input_states, change=lambda step, site, hidden: hidden):
    """The forward pass written out: logits, and what is at every (depth step, site), changed as told."""
    parts, config, seen, step = model.transformer, model.config, {}, 0
    freqs_cis = model.freqs_cis[:, : ids.shape[1]]

    def at(site, hidden):
        seen[step, site] = change(step, site, hidden)
        return seen[step, site]

    def run(block, x):
        nonlocal step
        x = at("block_in", x)
        mid = at("mid", block.norm_2(at("attn_out", block.attn(block.norm_1(x), freqs_cis, 0)) + x))
        x = at("block_out", block.norm_4(at("mlp_out", block.mlp(block.norm_3(mid))) + mid))
        step += 1
        return x

    embeds = parts.wte(ids)
    for block in parts.prelude:
        embeds = run(block, embeds)
    x = input_states
    for _ in range(config.mean_recurrence):
        x = parts.adapter(torch.cat([x, embeds], dim=-1))
        for block in parts.core_block:
            x = run(block, x)
    x = parts.ln_f(x)
    for block in parts.coda:
        x = run(block, x)
    seen["final"] = parts.ln_f(x)
    return model.lm_head(seen["final"]), seen
