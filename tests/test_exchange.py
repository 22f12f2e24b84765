"""Vectors come in and go out whole, for the right block, with the right sign, or not at all."""

import json
import os
import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from conftest import hidden_states
from lm_eval.models.hf_steered import SteeredModel
from torch import Tensor
from transformers import PreTrainedModel

from scripts import export_vector, import_vector
from thinksteer import models, store
from thinksteer.exchange import (
    Vectors,
    added_rows,
    block,
    check_output,
    combine,
    read,
    write_gguf,
    write_lm_eval,
    write_seal,
)
from thinksteer.records import Edit, InputError
from thinksteer.steering import applied

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("THINKEDIT_TEST_DATA", ROOT.parent / "shared" / "data"))
PARTS = ("execution_avg", "reflection_avg", "transition_avg")
SEAL = "layer_2_transition_reflection_steervec.pt"  # of the output of block 1
DIRECTION = torch.randn(6, 128, generator=torch.Generator().manual_seed(0))  # as the embedded model's
ROWS = dict(enumerate(DIRECTION))
ROW = torch.tensor([1.5, -2.0, 0.25])


def easysteer(name: str) -> Path:
    path = DATA / f"easysteer_math_{name}_vector.gguf"
    if not path.exists():
        pytest.skip(f"{path} is missing: set THINKEDIT_TEST_DATA to the folder that has it")
    return path


def contents(path: Path) -> tuple[dict[str, object], dict[str, tuple[str, bytes]]]:
    """Keys and tensors of a GGUF file as the gguf package reads them."""
    reader = gguf.GGUFReader(path)
    keys = {name: (field.types, field.contents()) for name, field in reader.fields.items()}
    return keys, {one.name: (one.tensor_type.name, one.data.tobytes()) for one in reader.tensors}


def write_raw(path: Path, tensors: dict[str, np.ndarray], architecture: str = "controlvector", **more: object) -> Path:
    """A GGUF file of any tensors, written by the gguf package alone."""
    writer = gguf.GGUFWriter(path, architecture, **more)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def saved(path: Path, value: object) -> Path:
    torch.save(value, path)
    return path


def same(found: dict[int, Tensor], wanted: dict[int, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[index], wanted[index]) for index in wanted)


@pytest.mark.parametrize("name", [*PARTS, "seal_merged"])
def test_a_published_control_vector_is_read_and_written_again_with_the_same_keys_and_bits(name, tmp_path):
    source = easysteer(name)
    keys, tensors = contents(source)
    rows = read(source).rows
    assert list(rows) == list(range(28)) and {row.shape for row in rows.values()} == {(1536,)}
    assert {f"direction.{index}": ("F32", row.numpy().tobytes()) for index, row in rows.items()} == tensors
    own = {name.removeprefix("controlvector."): value for name, (_, value) in keys.items() if "controlvector" in name}
    assert own.pop("layer_count") == 28
    write_gguf(tmp_path / "again.gguf", rows, own)
    assert contents(tmp_path / "again.gguf") == (keys, tensors)


def test_execution_minus_reflection_minus_transition_is_easysteers_merged_vector_bit_for_bit():
    parts, merged = [read(easysteer(name)) for name in PARTS], read(easysteer("seal_merged"))
    found = combine(parts, [1, -1, -1], (28, 1536))
    assert found.numpy().tobytes() == torch.stack(list(merged.rows.values())).numpy().tobytes()
    other = combine([parts[0], parts[2], parts[1]], [1, -1, -1], (28, 1536))
    assert not torch.equal(found, other)  # float32 addition depends on the order


def test_gguf_of_another_writer_and_byte_order_is_read(tmp_path):
    tensors = {f"direction.{index}": row.numpy().copy() for index, row in ROWS.items() if index}
    for order in (gguf.GGUFEndian.LITTLE, gguf.GGUFEndian.BIG):
        path = write_raw(tmp_path / f"{order.name}.gguf", tensors, endianess=order)
        assert same(read(path).rows, {index: row for index, row in ROWS.items() if index})


def test_our_gguf_says_what_repeng_asks_for(tmp_path):
    write_gguf(tmp_path / "v.gguf", {3: ROW, 1: 2 * ROW}, {"model_hint": "qwen2", "weight": 0.5})
    keys, tensors = contents(tmp_path / "v.gguf")
    stated = {name: value for name, (_, value) in keys.items() if not name.startswith("GGUF.")}
    assert stated == {
        "general.architecture": "controlvector",
        "controlvector.model_hint": "qwen2",
        "controlvector.weight": 0.5,
        "controlvector.layer_count": 2,
    }
    assert tensors == {
        "direction.3": ("F32", ROW.numpy().tobytes()),
        "direction.1": ("F32", (2 * ROW).numpy().tobytes()),
    }


def test_seal_and_lm_eval_files_come_back_as_they_went_out(tmp_path):
    write_seal(tmp_path / SEAL, {1: ROW})
    assert same(read(tmp_path / SEAL).rows, {1: ROW})
    write_lm_eval(tmp_path / "v.pt", [Edit("block_out", torch.stack([ROW, 0 * ROW, -ROW]), (0, 2), 0.5)])
    assert same(read(tmp_path / "v.pt").rows, {0: 0.5 * ROW, 2: -0.5 * ROW})


def test_a_direction_of_ours_is_its_rows_that_are_not_zero_if_block_outputs_were_read(tmp_path):
    path, direction = tmp_path / "v.safetensors", DIRECTION * torch.tensor([0, 0, 1, 1, 0, 1])[:, None]
    store.write_safetensors(path, {"direction": direction, "overall_norm": ROW}, {"read_site": "block_out"})
    assert same(read(path).rows, {index: DIRECTION[index] for index in (2, 3, 5)})
    with pytest.raises(InputError, match=r"says itself that it is for block\(s\) 2, 3, 5: leave out --layer"):
        read(path, layer=1)
    for about, site in (({"read_site": "mid"}, "mid"), ({}, "None")):
        store.write_safetensors(path, {"direction": direction}, about)
        with pytest.raises(InputError, match=rf"v\.safetensors was read at {site}, not where blocks put out"):
            read(path)
    store.write_safetensors(path, {"direction": 0 * direction}, {"read_site": "block_out"})
    with pytest.raises(InputError, match="holds no vector"):
        read(path)


def test_the_same_vectors_give_the_same_bytes_whatever_the_file_is_called(tmp_path):
    for name in ("a.pt", "b.pt"):
        write_lm_eval(tmp_path / name, [Edit("block_out", DIRECTION, tuple(ROWS), 1.0)])
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"a.pt", "b.pt"}


def test_seals_file_points_away_from_execution(tmp_path):
    write_seal(tmp_path / SEAL, {1: ROW})
    assert torch.equal(torch.load(tmp_path / SEAL, weights_only=True), -ROW)
    execution, others = torch.ones(4), torch.tensor([3.0, 0.0, 0.0, 0.0])
    saved(tmp_path / SEAL, others - execution)  # as its vector_generation.py does
    assert torch.equal(read(tmp_path / SEAL).rows[1], execution - others)


def test_a_vector_of_seal_moves_the_hidden_states_that_its_name_numbers(qwen, tmp_path):
    vector = torch.randn(32, generator=torch.Generator().manual_seed(1))
    found = read(saved(tmp_path / SEAL, vector))
    ids = tuple(range(3, 20))
    before = hidden_states(qwen, ids)
    edit = Edit("block_out", combine([found], [1.0], (3, 32)), (0, 1, 2), 1.0)
    with applied(qwen, [edit]):
        after = hidden_states(qwen, ids)
    torch.testing.assert_close(after[2] - before[2], -vector.double().expand(len(ids), -1))
    assert torch.equal(after[0], before[0]) and torch.equal(after[1], before[1])


def test_hidden_states_are_counted_from_the_embedding():
    assert [block(layer, "block") for layer in (0, 19)] == [0, 19]
    assert [block(layer, "hidden_states") for layer in (1, 20)] == [0, 19]
    with pytest.raises(InputError, match=r"hidden_states\[0\] is the embedding"):
        block(0, "hidden_states")
    with pytest.raises(InputError, match="--layer 20: say with --layer_numbering"):
        block(20, None)


LM_EVAL = {
    "added to a block": [Edit("block_out", DIRECTION, (2,), 0.7)],
    "added to several": [Edit("block_out", DIRECTION, (0, 3, 5), 0.1), Edit("attn_out", DIRECTION, (1, 3), -0.2)],
    "added to the MLP": [Edit("mlp_out", DIRECTION, (4,), 0.7)],
    "added to the embedding": [Edit("block_in", DIRECTION, (0, 4), 0.7)],
    "ablated": [
        Edit(site, DIRECTION, (2, 3), -1.0, operation="amplify") for site in ("block_in", "attn_out", "mlp_out")
    ],
}


@pytest.fixture(scope="module")
def tiny() -> PreTrainedModel:
    return models.load_model(models.resolve("tiny-reasoner", Path("nowhere")), "cpu")


@pytest.mark.parametrize("edits", LM_EVAL.values(), ids=LM_EVAL)
def test_lm_evals_own_model_steers_by_our_file_as_our_edits_do(edits, tiny, tmp_path):
    write_lm_eval(tmp_path / "v.pt", edits)
    theirs = SteeredModel(pretrained=str(models.TINY_REASONER), steer_path=str(tmp_path / "v.pt"), device="cpu")
    ids = torch.randint(10, 600, (2, 30), generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), applied(tiny, edits):
        wanted = tiny(ids).logits
        follows = tiny.generate(ids, max_length=40, do_sample=False)
    torch.testing.assert_close(theirs._model_call(ids), wanted, rtol=0, atol=2e-4)
    assert torch.equal(theirs._model_generate(ids, max_length=40, stop=["\n\n\n\n"]), follows)
    with torch.no_grad():
        assert (tiny(ids).logits - wanted).abs().max() > 0.1


LM_EVAL_REFUSED = {
    "amplified": (Edit("block_in", DIRECTION, (1,), 1.0, operation="amplify"), "cannot amplify by 1, only ablate"),
    "twice": (Edit("block_in", DIRECTION, (1,), 1.0), r"one vector for layers\.0: the input of a block is the output"),
    "read only": (Edit("mid", DIRECTION, (1,), 1.0), "changes no mid: give --site"),
}


@pytest.mark.parametrize("edit, message", LM_EVAL_REFUSED.values(), ids=LM_EVAL_REFUSED)
def test_what_lm_evals_file_cannot_say_is_refused(edit, message):
    with pytest.raises(InputError, match=message):
        check_output("lm-eval", Path("v.pt"), [Edit("block_out", DIRECTION, (0,), 1.0), edit])


def test_what_is_added_to_an_mlp_or_enters_a_block_is_of_a_blocks_output(qwen):
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    edits = [Edit("mlp_out", vectors, (1, 2), 0.5), Edit("block_in", vectors, (2,), -2.0)]
    rows = added_rows(edits)
    whole = torch.stack([rows.get(index, torch.zeros(32)) for index in range(3)])
    ids = torch.arange(3, 20)[None]
    with torch.no_grad(), applied(qwen, edits):
        wanted = qwen(ids).logits
    with torch.no_grad(), applied(qwen, [Edit("block_out", whole, (0, 1, 2), 1.0)]):
        torch.testing.assert_close(qwen(ids).logits, wanted, rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="what enters block 0 is the embedding"):
        added_rows([Edit("block_in", vectors, (0,), 1.0)])


def test_a_tensor_that_says_no_layer_is_taken_as_it_is_where_the_user_says(tmp_path):
    path = saved(tmp_path / "v.pt", ROW.to(torch.bfloat16).requires_grad_())
    assert same(read(path, 4).rows, {4: ROW})
    with pytest.raises(InputError, match=r"v\.pt does not say of which layer it is: give --layer"):
        read(path)


def test_a_file_that_says_its_layers_is_not_moved_to_another(tmp_path):
    write_gguf(tmp_path / "v.gguf", {1: ROW, 4: ROW}, {})
    write_lm_eval(tmp_path / "v.pt", [Edit("block_out", ROW.expand(5, -1), (1, 4), 1.0)])
    saved(tmp_path / SEAL, ROW)
    for name in ("v.gguf", "v.pt", SEAL):
        with pytest.raises(InputError, match=f"{name} says itself that it is for block.s. 1(, 4)?: leave out --layer"):
            read(tmp_path / name, 4)


def test_coefficients_weigh_files_and_layers_without_a_vector_are_zero():
    parts = [Vectors({0: ROW, 2: ROW}, "a"), Vectors({2: 2 * ROW}, "b")]
    found = combine(parts, [0.5, -1.0], (4, 3))
    assert torch.equal(found, torch.stack([0.5 * ROW, 0 * ROW, -1.5 * ROW, 0 * ROW]))


def test_files_are_summed_in_float32_in_the_order_given():
    parts = [Vectors({0: torch.tensor([value, 1.0])}, "a") for value in (1.0, 1e8, 1e8)]
    assert combine(parts, [1, 1, -1], (1, 2))[0, 0] == 0  # 1 + 1e8 is 1e8
    assert combine(parts[::-1], [-1, 1, 1], (1, 2))[0, 0] == 1


@pytest.mark.parametrize(
    "parts, coefficients, message",
    [
        ([{2: ROW}], [1], r"a0 reaches over 3 layers of 3 values, the model \[layers, hidden size\] is \[2, 3\]"),
        ([{1: ROW[:2]}], [1], r"a0 reaches over 2 layers of 2 values, .* is \[2, 3\]"),
        ([{1: ROW}, {1: ROW}], [1, -1], "sum up to zero"),
        ([{1: ROW}], [1e39], "not finite"),
    ],
)
def test_vectors_that_do_not_fit_the_model_or_cancel_out_are_refused(parts, coefficients, message):
    vectors = [Vectors(rows, f"a{index}") for index, rows in enumerate(parts)]
    with pytest.raises(InputError, match=message):
        combine(vectors, coefficients, (2, 3))


VALUES = ROW.numpy()
NOT_FINITE = np.array([1, np.nan, 1], dtype=np.float32)
GGUF_REFUSED = {
    "half": ({"direction.1": VALUES.astype(np.float16)}, r"'direction\.1' \(F16\)"),
    "matrix": ({"direction.1": np.stack([VALUES, VALUES])}, r"direction\.1 is torch\.float32 \[2, 3\], not a"),
    "widths": ({"direction.1": VALUES, "direction.2": VALUES[:2]}, "vectors of 2 and 3 values"),
    "twice": ({"direction.1": VALUES, "direction.01": VALUES}, "two vectors for block 1"),
    "negative": ({"direction.-1": VALUES}, r"'direction\.-1' \(F32\)"),
    "other": ({"direction.1": VALUES, "norm": VALUES}, r"'norm' \(F32\)"),
    "not finite": ({"direction.1": NOT_FINITE}, r"direction\.1 has values that are not finite"),
    "empty": ({}, "holds no vector"),
}


@pytest.mark.parametrize("tensors, message", GGUF_REFUSED.values(), ids=GGUF_REFUSED)
def test_a_gguf_file_that_is_no_whole_control_vector_is_refused(tensors, message, tmp_path):
    with pytest.raises(InputError, match=rf"v\.gguf.*{message}"):
        read(write_raw(tmp_path / "v.gguf", tensors))


def test_gguf_of_a_model_is_no_control_vector(tmp_path):
    with pytest.raises(InputError, match="GGUF of 'qwen2', not of a 'controlvector'"):
        read(write_raw(tmp_path / "v.gguf", {"direction.1": VALUES}, "qwen2"))


def test_a_truncated_or_damaged_gguf_file_is_refused_at_every_byte(tmp_path):
    path = tmp_path / "v.gguf"
    write_gguf(path, {1: ROW}, {"model_hint": "qwen2"})
    whole = path.read_bytes()
    end = whole.rindex(VALUES.tobytes()) + VALUES.nbytes
    for length in range(4, end):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"v\.gguf is a broken GGUF file .*fetch it again"):
            read(path)
    path.write_bytes(whole[:8] + struct.pack("<Q", 2**62) + whole[16:])  # so many tensors
    with pytest.raises(InputError, match="broken GGUF file"):
        read(path)


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_code_in_a_file_is_not_run(tmp_path):
    for name in (SEAL, "v.pt"):
        for value in (Payload(tmp_path / "run"), {"layers.1": Payload(tmp_path / "run")}):
            with pytest.raises(InputError, match=f"{name} is no tensor file, or holds code, which is not run"):
                read(saved(tmp_path / name, value))
            (tmp_path / name).write_bytes(pickle.dumps(value))
            with pytest.raises(InputError, match="or holds code"):
                read(tmp_path / name)
    assert not (tmp_path / "run").exists()


ENTRY = {"steering_vector": ROW, "steering_coefficient": 1.0, "action": "add", "bias": None, "head_index": None}
TENSORS_REFUSED = {
    "matrix": (torch.ones(2, 3), r"torch\.float32 \[2, 3\], not a floating-point vector"),
    "integers": (torch.ones(3, dtype=torch.int64), r"torch\.int64 \[3\], not a floating-point vector"),
    "empty": (torch.ones(0), "not a floating-point vector"),
    "list": ([1.0, 2.0], "is list, not a floating-point vector"),
    "infinite": (torch.tensor([1.0, torch.inf]), "values that are not finite"),
    "too large": (torch.tensor([1e300], dtype=torch.float64), "values that are not finite"),
    "nothing": ({}, "holds no vector"),
    "an mlp": ({"layers.1.mlp": ENTRY}, r"'layers\.1\.mlp' is no whole block"),
    "no vector": ({"layers.1": {"action": "add"}}, r"'layers\.1' is no whole block"),
    "clamp": ({"layers.1": ENTRY | {"action": "clamp"}}, "not a vector times a number"),
    "head": ({"layers.1": ENTRY | {"head_index": 0}}, "not a vector times a number"),
    "bias": ({"layers.1": ENTRY | {"bias": ROW}}, "not a vector times a number"),
    "text": ({"layers.1": ENTRY | {"steering_coefficient": "1"}}, "not a vector times a number"),
    "widths": ({"layers.1": ENTRY, "layers.2": ENTRY | {"steering_vector": ROW[:2]}}, "vectors of 2 and 3 values"),
}


TENSORS_REFUSED |= {
    f"coefficient {value}": ({"layers.1": ENTRY | {"steering_coefficient": value}}, "is not a vector times a number")
    for value in (True, None, "1", float("nan"), float("inf"), 10**400)
}
TENSORS_REFUSED["twice"] = ({"layers.1": ENTRY, "layers.01": ENTRY}, "two vectors for block 1")


@pytest.mark.parametrize("value, message", TENSORS_REFUSED.values(), ids=TENSORS_REFUSED)
def test_a_tensor_file_that_is_no_vector_to_add_is_refused(value, message, tmp_path):
    with pytest.raises(InputError, match=rf"{SEAL}.*{message}"):
        read(saved(tmp_path / SEAL, value))


@pytest.mark.parametrize("name, data", [("v.gguf", None), ("v.gguf", b""), ("v.pt", b"junk"), ("v.pt", b"PK\x03\x04")])
def test_what_is_missing_or_no_vector_file_is_named(name, data, tmp_path):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=f"{name} (cannot be read|is no tensor file)"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    "kind, name, layers, message",
    [
        ("seal", SEAL, range(6), r"one layer, the direction has block\(s\) 0, 1, 2, 3, 4, 5: give --layer"),
        ("seal", SEAL, [2], "call it layer_3_transition_reflection_steervec.pt"),
        ("lm-eval", "v.bin", range(6), "only from files that end in .pt or .pth"),
    ],
)
def test_a_file_that_its_readers_would_misread_is_not_written(kind, name, layers, message):
    with pytest.raises(InputError, match=message):
        check_output(kind, Path(name), [Edit("block_out", DIRECTION, tuple(layers), 1.0)])


def test_what_is_written_replaces_the_old_file_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "v.gguf"
    write_gguf(path, {1: ROW}, {})
    before = path.read_bytes()

    def fail(self: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", fail)
    with pytest.raises(OSError, match="disk full"):
        write_gguf(path, {1: -ROW}, {})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Runs a script with flags on artifacts of its own; returns what it prints."""

    def run(script: object, *flags: object) -> str:
        monkeypatch.setattr(sys, "argv", ["script", *map(str, flags), "--artifacts", str(tmp_path / "artifacts")])
        script.main()
        return capsys.readouterr().out

    return run


def imported(tmp_path: Path, name: str, model: str = "tiny-reasoner") -> tuple[Tensor, dict[str, str]]:
    path = store.direction_path(tmp_path / "artifacts", model, name)
    return store.read_direction(path), store.read_safetensors(path)[1]


def test_files_are_combined_into_a_direction_that_says_where_it_came_from(call, tmp_path):
    files = [tmp_path / "a.gguf", tmp_path / "b.gguf"]
    for file, weight in zip(files, (3.0, 1.0), strict=True):
        write_gguf(file, {index: weight * row for index, row in ROWS.items()}, {})
    flags = [*files, "--name", "mine", "--method", "seal", "--coefficients", 1, -1]
    printed = call(import_vector, *flags)
    direction, about = imported(tmp_path, "mine")
    torch.testing.assert_close(direction, 2 * DIRECTION)
    assert {name: about[name] for name in ("method", "read_site", "model", "origin", "coefficients")} == {
        "method": "seal",
        "read_site": "block_out",
        "model": "tiny-reasoner",
        "origin": "a.gguf (GGUF control vector), b.gguf (GGUF control vector)",
        "coefficients": "1 -1",
    }
    assert about["origin_sha256"] == ",".join(map(store.sha256, files))
    assert "-1 times b.gguf (GGUF control vector): to the output of block(s) 0, 1, 2, 3, 4, 5" in printed
    assert call(import_vector, *flags) == printed  # there is nothing left to do
    write_gguf(files[0], {1: ROWS[1]}, {})
    with pytest.raises(InputError, match="was made otherwise"):
        call(import_vector, *flags)
    with pytest.raises(InputError, match="--coefficients: 0 for 2 files: give one for each"):
        call(import_vector, *files, "--name", "mine")


def test_one_vector_lands_in_its_layer_by_either_numbering(call, tmp_path):
    vector = saved(tmp_path / "v.pt", DIRECTION[0])
    for layer, numbering in ((4, "hidden_states"), (3, "block")):
        call(import_vector, vector, "--name", numbering, "--layer", layer, "--layer_numbering", numbering)
        direction, about = imported(tmp_path, numbering)
        assert direction.any(dim=1).nonzero().tolist() == [[3]] and torch.equal(direction[3], DIRECTION[0])
        assert about["method"] == numbering and about["origin"] == "v.pt (tensor as it is)"
    call(import_vector, saved(tmp_path / SEAL, DIRECTION[0]), "--name", "seal")
    direction, about = imported(tmp_path, "seal")
    assert torch.equal(direction[1], -DIRECTION[0]) and about["origin"].endswith("hidden_states[2], negated)")


def test_a_vector_of_another_model_is_refused_and_leaves_nothing(call, tmp_path):
    write_gguf(tmp_path / "v.gguf", {27: torch.ones(1536)}, {})
    with pytest.raises(InputError, match=r"over 28 layers of 1536 values, the model .* is \[6, 128\]"):
        call(import_vector, tmp_path / "v.gguf", "--name", "mine")
    assert not (tmp_path / "artifacts").exists()


def test_a_vector_for_block_outputs_takes_no_name_that_is_added_elsewhere(call, tmp_path):
    write_gguf(tmp_path / "v.gguf", ROWS, {})
    with pytest.raises(InputError, match="--name thinking_length_attn: that one is added to what attention puts out"):
        call(import_vector, tmp_path / "v.gguf", "--name", "thinking_length_attn")
    call(import_vector, tmp_path / "v.gguf", "--name", "thinking_length_mlp")  # the same sum as at block outputs


def test_without_the_models_config_files_must_state_the_number_of_layers(call, tmp_path, monkeypatch):
    monkeypatch.setattr("thinksteer.model_files.config", lambda ref: None)
    write_gguf(tmp_path / "most.gguf", {index: row for index, row in ROWS.items() if index}, {})
    printed = call(import_vector, tmp_path / "most.gguf", "--name", "most")
    assert imported(tmp_path, "most")[0].shape == (6, 128) and "so the shape is the files' own" in printed
    for rows in ({3: ROW}, {1: ROW}, {2: ROW, 3: ROW}):
        write_gguf(tmp_path / "some.gguf", rows, {})
        with pytest.raises(InputError, match=r"how many layers .* has is not known: .*config\.json"):
            call(import_vector, tmp_path / "some.gguf", "--name", "some")


def test_easysteers_means_become_the_direction_it_published(call, tmp_path):
    model = tmp_path / "distilled"
    model.mkdir()
    config = {"model_type": "qwen2", "num_hidden_layers": 28, "hidden_size": 1536}
    (model / "config.json").write_text(json.dumps(config))
    place = ["--model", model, "--template", "deepseek"]
    call(import_vector, *map(easysteer, PARTS), "--coefficients", 1, -1, -1, *place, "--name", "seal")
    merged = read(easysteer("seal_merged")).rows
    assert same(dict(enumerate(imported(tmp_path, "seal", "distilled")[0])), merged)
    printed = call(export_vector, *place, "--control", "seal", "--format", "gguf", "--output", tmp_path / "v.gguf")
    assert contents(tmp_path / "v.gguf")[1] == contents(easysteer("seal_merged"))[1]
    assert contents(tmp_path / "v.gguf")[0]["controlvector.model_hint"][1] == "qwen2"
    assert "llama.cpp cannot steer block 0" in printed


@pytest.fixture
def direction(tmp_path) -> Path:
    path = store.direction_path(tmp_path / "artifacts", "tiny-reasoner", "mine")
    store.write_safetensors(path, {"direction": DIRECTION}, {"read_site": "block_out"})
    return path


def test_a_direction_goes_out_in_every_format_and_comes_in_again(call, tmp_path, direction):
    out = ["--control", "mine", "--direction_weight", 0.5]
    for kind, name in (("gguf", "v.gguf"), ("lm-eval", "v.pt")):
        call(export_vector, *out, "--format", kind, "--output", tmp_path / name)
        call(import_vector, tmp_path / name, "--name", kind)
        assert torch.equal(imported(tmp_path, kind)[0], 0.5 * DIRECTION)
    assert torch.load(tmp_path / "v.pt")["layers.3"]["steering_coefficient"] == 0.5
    for layer, numbering in ((2, "hidden_states"), (1, "block")):
        flags = ["--layer", layer, "--layer_numbering", numbering, "--overwrite"]
        call(export_vector, *out, "--format", "seal", "--output", tmp_path / SEAL, *flags)
        assert torch.equal(torch.load(tmp_path / SEAL), -0.5 * DIRECTION[1])
    call(import_vector, tmp_path / SEAL, "--name", "seal")
    assert torch.equal(imported(tmp_path, "seal")[0][1], 0.5 * DIRECTION[1])


def test_what_others_cannot_do_with_a_file_is_said(call, tmp_path, direction):
    out = ["--control", "mine", "--output", tmp_path / "v.gguf", "--format", "gguf"]
    printed = call(export_vector, *out)
    assert "llama.cpp cannot steer block 0 and refuses the whole file" in printed
    cure = printed.strip().split("\n")[-1].split()
    assert cure == ["--layer_numbering", "block", "--layer", "1", "2", "3", "4", "5"]
    assert "llama.cpp" not in call(export_vector, *out, *cure, "--overwrite")
    assert list(read(tmp_path / "v.gguf").rows) == [1, 2, 3, 4, 5]
    out = ["--control", "mine", "--output", tmp_path / "v.pt", "--format", "lm-eval"]
    assert "would add the last of these vectors at every block" in call(export_vector, *out)
    one = call(export_vector, *out, "--layer", 2, "--layer_numbering", "block", "--overwrite")
    assert "add the last" not in one and "block_out of block(s) 2\n" in one


def test_a_layer_of_zeros_is_left_out(call, tmp_path, direction):
    store.write_safetensors(
        direction, {"direction": DIRECTION * (torch.arange(6) == 1)[:, None]}, {"read_site": "block_out"}
    )
    call(export_vector, "--control", "mine", "--format", "gguf", "--output", tmp_path / "v.gguf")
    assert same(read(tmp_path / "v.gguf").rows, {1: DIRECTION[1]})
    call(export_vector, "--control", "mine", "--format", "seal", "--output", tmp_path / SEAL)
    assert same(read(tmp_path / SEAL).rows, {1: DIRECTION[1]})


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--layer", 6, "--layer_numbering", "block"], "there is no block 6, the direction has 6"),
        (["--layer", 0, "--layer_numbering", "hidden_states"], "is the embedding"),
        (["--layer", 2], "say with --layer_numbering"),
        (["--direction_weight", 0], "zero, or too large for float32"),
        (["--direction_weight", 1e39], "zero, or too large for float32"),
        (["--format", "seal"], "holds one layer"),
    ],
)
def test_an_export_that_cannot_be_is_refused_and_leaves_nothing(call, tmp_path, direction, flags, message):
    with pytest.raises(InputError, match=message):
        call(export_vector, "--control", "mine", "--format", "gguf", "--output", tmp_path / "v.gguf", *flags)
    assert [path.name for path in tmp_path.iterdir()] == ["artifacts"]


def test_a_direction_of_another_place_than_block_outputs_is_not_exported(call, tmp_path, direction):
    store.write_safetensors(direction, {"direction": DIRECTION}, {"read_site": "mid"})
    with pytest.raises(InputError, match="add at mid, but this format adds to block outputs"):
        call(export_vector, "--control", "mine", "--format", "gguf", "--output", tmp_path / "v.gguf")


def exported(call: Callable[..., str], tmp_path: Path, *flags: object) -> dict[str, Any]:
    call(export_vector, "--format", "lm-eval", "--output", tmp_path / "v.pt", *flags, "--overwrite")
    return torch.load(tmp_path / "v.pt")


def test_a_direction_goes_out_as_its_control_or_the_flags_apply_it(call, tmp_path, direction):
    about = {"method": "thinking_length_attn", "read_site": "mid"}
    store.write_safetensors(direction, {"direction": DIRECTION}, about)
    found = exported(call, tmp_path, "--control", "mine", "--direction_weight", 0.5)
    assert list(found) == [f"layers.{index}.self_attn" for index in range(6)]
    assert {(one["steering_coefficient"], one["action"]) for one in found.values()} == {(0.5, "add")}

    ablation = ["--operation", "amplify", "--direction_weight", -1, "--site", "block_in", "mlp_out", "--from_layer", 3]
    found = exported(call, tmp_path, "--control", "mine", *ablation)
    assert list(found) == ["embed_tokens", *(f"layers.{index}" for index in range(5))] + [
        f"layers.{index}.mlp" for index in range(6)
    ]
    assert {(one["steering_coefficient"], one["action"]) for one in found.values()} == {(0.0, "clamp")}
    assert all(torch.equal(one["steering_vector"], DIRECTION[3]) for one in found.values())

    with pytest.raises(InputError, match="add at attn_out, but this format adds to block outputs"):
        call(export_vector, "--control", "mine", "--format", "gguf", "--output", tmp_path / "v.gguf")
    with pytest.raises(InputError, match="these formats hold no rule about tokens"):
        exported(call, tmp_path, "--control", "mine", "--tokens", "response")


def test_a_direction_of_block_inputs_is_of_the_output_before(call, tmp_path, direction):
    store.write_safetensors(direction, {"direction": DIRECTION}, {"read_site": "block_in"})
    out = ["--control", "mine", "--format", "gguf", "--output", tmp_path / "v.gguf"]
    with pytest.raises(InputError, match="what enters block 0 is the embedding"):
        call(export_vector, *out)
    for numbering in ("block", "hidden_states"):  # entry i of hidden_states enters block i
        printed = call(export_vector, *out, "--layer_numbering", numbering, "--layer", 1, 4, "--overwrite")
        assert same(read(tmp_path / "v.gguf").rows, {0: DIRECTION[1], 3: DIRECTION[4]})
        assert printed.strip().split("\n")[-1].split() == ["--layer_numbering", "block", "--layer", "4"]


def test_a_direction_of_other_layers_than_the_models_blocks_is_not_exported(call, tmp_path, direction):
    store.write_safetensors(direction, {"direction": DIRECTION.repeat(2, 1)}, {"read_site": "block_out"})
    with pytest.raises(InputError, match=r"is of 12 layers, .* has 6 blocks"):
        exported(call, tmp_path, "--control", "mine")
