"""Steering vectors in the formats of others. Here a vector belongs to the OUTPUT of decoder block l, counted from 0.

`hidden_states[k]` of transformers, by which SEAL counts, is the output of block k - 1; `hidden_states[0]` is of none.

- GGUF control vectors, `direction.<l>` for the output of block l: repeng (extract.py reads `hidden_states[l + 1]`, the
  last of which is behind the final norm; control.py adds behind `layers[l]`), EasySteer (steer_vectors/discovery.py of
  its vLLM takes l from the block's module name, layers.py hooks its output), llama.cpp (common.cpp puts `direction.<l>`
  in row l - 1, src/llama-adapter.cpp gives that row to block l, src/models/qwen2.cpp adds it behind the MLP). llama.cpp
  has no vector for block 0 and refuses a file with `direction.0` whole.
- SEAL's `layer_<k>_transition_reflection_steervec.pt`: one vector, which its name alone says all of. It points from
  execution to the others (vector_generation.py) and is added to `hidden_states[k]` with coefficient -1; ours is its
  negative.
- lm-eval's model `steered` (lm_eval/models/hf_steered.py of 0.4.13): `{"layers.<l>": {...}}` changes what block l puts
  out, at every position; any other module can be named. "add" adds vector times coefficient. "clamp" makes the
  coefficient the component along the vector (of length 1, whatever the file's is), so that 0 ablates it; to amplify it
  otherwise there is no way. `bias` goes with "clamp" only: the origin that it measures from. `head_index` asks for
  activations `[B, T, heads, D]`, which none of our models' modules put out, and "clamp" fails with it in any case.
  All is computed in the model's dtype. Releases 0.4.8 to 0.4.9.1 use the last vector of the file at all its modules.
- Our own directions, where they were read from block outputs: each row that is not zero.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from thinksteer.records import Edit, InputError
from thinksteer.store import atomic, load_torch, read_direction, read_safetensors

if TYPE_CHECKING:
    from torch import Tensor

Numbering = Literal["block", "hidden_states"]
NUMBERINGS: tuple[Numbering, ...] = ("block", "hidden_states")
FORMATS = ("gguf", "seal", "lm-eval")
ARCHITECTURE = "controlvector"
FLOAT32_MAX = 3.4028234663852886e38
HOOKPOINTS = {"block_out": "layers.{}", "attn_out": "layers.{}.self_attn", "mlp_out": "layers.{}.mlp"}
SEAL_NAME = "layer_{}_transition_reflection_steervec.pt"


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors `[hidden_size]`, float32, by the block to whose output they are added; `origin`: their file, how read."""

    rows: dict[int, Tensor]
    origin: str


def block(layer: int, numbering: Numbering | None) -> int:
    """The block whose output a layer number means. InputError if nothing says how it counts, or no block is meant."""
    if numbering is None:
        raise InputError(f"--layer {layer}: say with --layer_numbering how it counts, {' or '.join(NUMBERINGS)}")
    if numbering == "block":
        return layer
    if layer == 0:
        raise InputError("hidden_states[0] is the embedding, which no block puts out: its vector cannot be added here")
    return layer - 1


def read(path: Path, layer: int | None = None) -> Vectors:
    """The vectors of a file of any of these formats, told by its content; SEAL's by its name.

    `layer`: the block of any other tensor `[hidden_size]`, which does not say its own. Nothing in a file is executed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give a .gguf, .pt or .safetensors file") from None
    is_gguf, is_ours = data[:4] == b"GGUF", data[8:9] == b"{"  # where the header of safetensors begins
    seal = re.fullmatch(SEAL_NAME.format(r"(\d+)"), path.name)
    value = None if is_gguf or is_ours else load_torch(data, str(path))
    if is_gguf:
        rows, origin = _gguf_rows(path), "GGUF control vector"
    elif is_ours:
        rows, origin = _own_rows(path), "direction"
    elif isinstance(value, dict):
        rows, origin = _lm_eval_rows(value, path), "of lm-eval's steered model"
    elif seal:
        rows = {block(int(seal[1]), "hidden_states"): -_checked(value, str(path))}
        origin = f"SEAL's for hidden_states[{seal[1]}], negated"
    elif layer is not None:
        return Vectors({layer: _checked(value, str(path))}, f"{path.name} (tensor as it is)")
    else:
        raise InputError(f"{path} does not say of which layer it is: give --layer and --layer_numbering")
    if layer is not None:
        raise InputError(f"{path} says itself that it is for block(s) {_listed(rows)}: leave out --layer")
    if len(widths := {len(row) for row in rows.values()}) != 1:
        sizes = f"vectors of {' and '.join(map(str, sorted(widths)))} values" if widths else "no vector"
        raise InputError(f"{path} holds {sizes}: one for each layer, all of the model's hidden size, are needed")
    return Vectors(rows, f"{path.name} ({origin})")


def combine(vectors: Sequence[Vectors], coefficients: Sequence[float], shape: tuple[int, int]) -> Tensor:
    """The direction `[num_layers, hidden_size]` that coefficients times the vectors sum up to; zero where none is.

    Summed in float32 from left to right: so EasySteer's execution - reflection - transition comes out bit for bit.
    """
    import torch

    total = torch.zeros(shape)
    for one, coefficient in zip(vectors, coefficients, strict=True):
        found = max(one.rows) + 1, len(next(iter(one.rows.values())))
        if found[0] > shape[0] or found[1] != shape[1]:
            raise InputError(
                f"{one.origin} reaches over {found[0]} layers of {found[1]} values, the model [layers, hidden size] is "
                f"{list(shape)}: the vector was made from another model, or its layers are counted otherwise"
            )
        for index, row in one.rows.items():
            total[index] += coefficient * row
    if not total.isfinite().all() or not total.any():
        raise InputError("the vectors sum up to zero, or to what is not finite: give other --coefficients")
    return total


def _gguf_rows(path: Path) -> dict[int, Tensor]:
    import gguf
    import torch

    try:
        reader = gguf.GGUFReader(path)
        field = reader.get_field("general.architecture")
        architecture = field.contents() if field else None
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:  # what wrong counts end in
        raise InputError(f"{path} is a broken GGUF file ({error}): fetch it again") from None
    if architecture != ARCHITECTURE:
        raise InputError(f"{path} is GGUF of {architecture!r}, not of a {ARCHITECTURE!r}: give a control vector")
    rows: dict[int, Tensor] = {}
    for tensor in reader.tensors:
        match = re.fullmatch(r"direction\.(\d+)", tensor.name)
        if match is None or tensor.tensor_type != gguf.GGMLQuantizationType.F32:
            kind = f"{tensor.name!r} ({tensor.tensor_type.name})"
            raise InputError(f"{path} holds {kind}: a control vector has direction.<layer>, F32, and nothing else")
        if (index := int(match[1])) in rows:
            raise InputError(f"{path} holds two vectors for block {index}: keep one")
        rows[index] = _checked(torch.from_numpy(np.array(tensor.data, dtype=np.float32)), f"{path}: {tensor.name}")
    return rows


def _own_rows(path: Path) -> dict[int, Tensor]:
    direction, site = read_direction(path), read_safetensors(path)[1].get("read_site")
    if site != "block_out":
        raise InputError(f"{path} was read at {site}, not where blocks put out: its vectors are not added there")
    return {index: row.float() for index, row in enumerate(direction) if row.any()}


def _lm_eval_rows(value: dict[Any, Any], path: Path) -> dict[int, Tensor]:
    rows: dict[int, Tensor] = {}
    for name, entry in value.items():
        match = re.fullmatch(r"layers\.(\d+)", str(name))
        if match is None or not isinstance(entry, dict) or "steering_vector" not in entry:
            raise InputError(f"{path}: {name!r} is no whole block with its vector, such as lm-eval's layers.19")
        coefficient = entry.get("steering_coefficient", 1.0)
        other = [key for key in ("bias", "head_index") if entry.get(key) is not None]
        is_number = type(coefficient) in (int, float) and abs(coefficient) <= FLOAT32_MAX
        if entry.get("action") != "add" or other or not is_number:
            raise InputError(f"{path}: {name} is not a vector times a number, added to all of a block's output")
        if (index := int(match[1])) in rows:
            raise InputError(f"{path} holds two vectors for block {index}: keep one")
        rows[index] = _checked(entry["steering_vector"], f"{path}: {name}") * coefficient
    return rows


def _checked(value: Any, name: str) -> Tensor:
    """A row as float32. InputError if it is not a tensor `[hidden_size]` of finite numbers."""
    from torch import Tensor

    if not isinstance(value, Tensor) or value.ndim != 1 or not len(value) or not value.is_floating_point():
        found = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"{name} is {found}, not a floating-point vector [hidden_size]")
    row = value.detach().float()
    if not row.isfinite().all():
        raise InputError(f"{name} has values that are not finite: make it anew")
    return row


def _listed(rows: Mapping[int, Tensor]) -> str:
    return ", ".join(map(str, sorted(rows)))


def added_rows(edits: Sequence[Edit]) -> dict[int, Tensor]:
    """What edits at every position add to the outputs of blocks: float32 `[hidden_size]` by block.

    To add at the MLP's output is to add at its block's, what enters a block is what the one before puts out.
    """
    rows: dict[int, Tensor] = {}
    for edit in edits:
        if edit.operation != "add" or edit.site not in ("block_in", "mlp_out", "block_out"):
            raise InputError(
                f"{edit.operation} at {edit.site}, but this format adds to block outputs: take --format lm-eval or, to "
                "add at attn_out, bake it into a checkpoint with scripts.export_steered"
            )
        for layer in edit.layers:
            index = layer - 1 if edit.site == "block_in" else layer
            if index < 0:
                raise InputError("what enters block 0 is the embedding, which no block puts out: give other --layer")
            row = (edit.coef * edit.vectors[layer]).float()
            rows[index] = rows[index] + row if index in rows else row
    return rows


def check_output(kind: str, path: Path, edits: Sequence[Edit]) -> None:
    """Refuse a file that a format cannot be, before anything is written."""
    if kind == "lm-eval":
        if path.suffix not in (".pt", ".pth"):
            raise InputError(f"{path}: lm-eval reads vectors only from files that end in .pt or .pth: call it so")
        lm_eval_entries(edits)
        return
    rows = added_rows(edits)
    if kind == "seal" and len(rows) != 1:
        raise InputError(f"SEAL's format holds one layer, the direction has block(s) {_listed(rows)}: give --layer")
    if kind == "seal" and path.name != (name := SEAL_NAME.format(max(rows) + 1)):
        raise InputError(f"{path}: SEAL's file says by its name of which layer it is: call it {name}")


def write_gguf(path: Path, rows: Mapping[int, Tensor], about: Mapping[str, str | float]) -> None:
    """`direction.<l>` for each block l, with `controlvector.<key>` of `about`: repeng asks for a `model_hint`."""
    import gguf

    with atomic(path) as partial:
        writer = gguf.GGUFWriter(partial, ARCHITECTURE)
        for key, value in about.items():
            add = writer.add_string if isinstance(value, str) else writer.add_float32
            add(f"{ARCHITECTURE}.{key}", value)
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(rows))  # as repeng and EasySteer count them
        for index, row in rows.items():
            writer.add_tensor(f"direction.{index}", row.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def write_seal(path: Path, rows: Mapping[int, Tensor]) -> None:
    """The negative of the one row, as SEAL keeps it."""
    [row] = rows.values()
    _save(path, -row)


def write_lm_eval(path: Path, edits: Sequence[Edit]) -> None:
    """The vectors as they are, the coefficient beside each, for `--model steered --model_args steer_path=<path>`."""
    _save(path, lm_eval_entries(edits))


def lm_eval_entries(edits: Sequence[Edit]) -> dict[str, dict[str, Any]]:
    """What edits at every position are to lm-eval, by module. InputError: they are what its file cannot say."""
    entries: dict[str, dict[str, Any]] = {}
    for edit in edits:
        if edit.operation == "amplify" and edit.coef != -1:
            raise InputError(f"lm-eval cannot amplify by {edit.coef:g}, only ablate (--direction_weight -1), or add")
        ablate = edit.operation == "amplify"
        about = {"steering_coefficient": 0.0 if ablate else edit.coef, "action": "clamp" if ablate else "add"}
        for layer in edit.layers:
            name = _hookpoint(edit, layer)
            if name in entries:
                raise InputError(f"lm-eval takes one vector for {name}: the input of a block is the output before it")
            vector = edit.vectors[layer].float().clone()
            entries[name] = {"steering_vector": vector, **about, "bias": None, "head_index": None}
    return entries


def _hookpoint(edit: Edit, layer: int) -> str:
    """The module of the decoder whose output the edit changes."""
    if edit.site == "block_in":
        return HOOKPOINTS["block_out"].format(layer - 1) if layer else "embed_tokens"
    if edit.site not in HOOKPOINTS:
        raise InputError(
            f"lm-eval changes no {edit.site}: give --site, one or more of block_in, {', '.join(HOOKPOINTS)}"
        )
    return HOOKPOINTS[edit.site].format(layer)


def _save(path: Path, value: object) -> None:
    import torch

    stream = io.BytesIO()  # torch.save would write the name of a file into it
    torch.save(value, stream)
    with atomic(path) as partial:
        partial.write_bytes(stream.getvalue())
