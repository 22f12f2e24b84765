"""A key-value cache of slots, and the attention that reads it.

Row r of the running batch owns slot r of every layer. All rows write the same column at a step; a row's tokens end at
the last written column, so a short row has unused columns at its left, which its mask hides.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import scaled_dot_product_attention
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from thinksteer.records import InputError

ATTENTION = "grouped_sdpa"


@dataclass(frozen=True)
class LayerShape:
    """What one layer caches per token."""

    kv_heads: int
    key_size: int
    value_size: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_token(self) -> int:
        return self.kv_heads * (self.key_size + self.value_size) * self.dtype.itemsize


def layer_shapes(cached: list[CacheLayerMixin], longest: int) -> list[LayerShape]:
    """From what the layers cache of one token. `longest`: the most tokens a row may hold.

    InputError for sliding windows shorter than that (a longer window never cuts anything, so it is full attention).
    """
    shapes = []
    for index, layer in enumerate(cached):
        window = getattr(layer, "sliding_window", None)
        if window is not None and window < longest:
            raise InputError(
                f"layer {index} attends to {window} tokens, but prompt and response may reach {longest}; "
                "lower --max_length or use --engine vllm"
            )
        (_, heads, _, key_size), value_size = layer.keys.shape, layer.values.shape[-1]
        shapes.append(LayerShape(heads, key_size, value_size, layer.keys.dtype, layer.keys.device))
    return shapes


class SlotLayer(CacheLayerMixin):
    """Keys and values `[slots, kv_heads, columns, head_dim]` of one layer."""

    is_sliding = False

    def __init__(self, shape: LayerShape, slots: int, columns: int) -> None:
        super().__init__()
        place = {"dtype": shape.dtype, "device": shape.device}
        self.keys = torch.zeros(slots, shape.kv_heads, columns, shape.key_size, **place)
        self.values = torch.zeros(slots, shape.kv_heads, columns, shape.value_size, **place)
        self.is_initialized = True
        self.rows, self.begin, self.write = slice(0), 0, slice(0)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: the tensors exist from the start."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Writes `[rows, kv_heads, written columns, head_dim]`; returns the columns to attend to."""
        self.keys[self.rows, :, self.write] = key_states
        self.values[self.rows, :, self.write] = value_states
        read = slice(self.begin, self.write.stop)
        return self.keys[self.rows, :, read], self.values[self.rows, :, read]

    def get_seq_length(self) -> int:
        return self.write.start - self.begin

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.write.stop - self.begin, 0

    def get_max_length(self) -> int:
        return self.keys.shape[2]


class SlotCache(Cache):
    """The slot layers of a model; rows `[0, n)` are in use."""

    def __init__(self, shapes: list[LayerShape], slots: int, columns: int) -> None:
        super().__init__(layers=[SlotLayer(shape, slots, columns) for shape in shapes])
        self.slots, self.columns, self.dtype = slots, columns, shapes[0].dtype

    def aim(self, rows: slice, begin: int, write: slice) -> None:
        """Says which rows and columns the next forward pass writes, and from which column on it reads."""
        for layer in self.layers:
            layer.rows, layer.begin, layer.write = rows, begin, write

    def move(self, sources: list[int], targets: list[int], window: slice) -> None:
        """Copies rows onto other rows, in the columns of the window."""
        for layer in self.layers:
            layer.keys[targets, :, window] = layer.keys[sources, :, window]
            layer.values[targets, :, window] = layer.values[sources, :, window]

    def shift(self, rows: slice, window: slice, columns: int) -> None:
        """Moves the window of columns to the right by `columns` (to the left if negative)."""
        moved = slice(window.start + columns, window.stop + columns)
        for layer in self.layers:
            layer.keys[rows, :, moved] = layer.keys[rows, :, window].clone()
            layer.values[rows, :, moved] = layer.values[rows, :, window].clone()


def grouped_attention(
    module: Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Attention for one new token per row: the query heads of a key-value head take the place of query positions.

    `query [n, heads, 1, d]`, `key`, `value [n, kv_heads, columns, d]`, mask `[n, 1, 1, columns]`. So the cache is read
    in place; transformers' SDPA copies keys and values once per query head, on a CPU five times slower.
    """
    if query.shape[2] > 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling)
    rows, heads, _, size = query.shape
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], size)
    output = scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=scaling)
    return output.reshape(rows, 1, heads, value.shape[-1]), None
