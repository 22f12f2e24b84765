import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from thinksteer import checkpoints
from thinksteer.checkpoints import checkpoint_tensors, read_tensor, rewrite_checkpoint
from thinksteer.records import InputError

NAMES = [f"model.layers.{layer}.self_attn.{part}_proj.weight" for layer in range(3) for part in "qo"]
EDITED = NAMES[1]


def weights(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(6, 4, generator=generator).to(dtype) for name in NAMES}
    return tensors | {"ids": torch.arange(5), "scale": torch.tensor(2.5, dtype=dtype)}


def single(folder, dtype=torch.float32):
    folder.mkdir(parents=True)
    save_file(weights(dtype), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text('{"model_type":   "tiny"}\n')
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.txt").write_bytes(b"a\r\nb\xff")
    for hidden in (".git", ".cache", "original"):
        (folder / hidden).mkdir()
        (folder / hidden / "weights.bin").write_bytes(b"old")
    return folder


def sharded(folder, dtype=torch.bfloat16):
    single(folder, dtype)
    (folder / "model.safetensors").unlink()
    tensors, weight_map = list(weights(dtype).items()), {}
    for index in range(2):
        file = f"model-{index + 1:05}-of-00002.safetensors"
        part = dict(tensors[index::2])
        save_file(part, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def cached(folder):
    """As the Hugging Face cache: read-only blobs, a snapshot of relative links to them."""
    blobs, snapshot = folder / "blobs", folder / "snapshots" / "abc"
    sharded(blobs)
    snapshot.mkdir(parents=True)
    for path in sorted(path for path in blobs.rglob("*") if path.is_file()):
        path.chmod(0o444)
        link = snapshot / path.relative_to(blobs)
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(os.path.relpath(path, link.parent))
    return snapshot


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def tensors_of(folder):
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.mark.parametrize(
    "make",
    [
        single,
        lambda folder: single(folder, torch.bfloat16),
        lambda folder: single(folder, torch.float16),
        sharded,
        cached,
    ],
    ids=["single", "bfloat16", "float16", "sharded", "cache"],
)
def test_only_the_named_tensors_change_and_every_other_byte_stays(tmp_path, make):
    source, target = make(tmp_path / "source"), tmp_path / "out" / "target"
    before = contents(source)
    rewrite_checkpoint(
        source, target, {EDITED: lambda weight: weight.neg().T.contiguous().T, NAMES[4]: torch.zeros_like}
    )
    assert contents(source) == before
    old, new, after = tensors_of(source), tensors_of(target), contents(target)
    expected = old | {EDITED: -old[EDITED], NAMES[4]: torch.zeros_like(old[NAMES[4]])}
    assert new.keys() == expected.keys()
    for name, tensor in expected.items():
        assert new[name].dtype == tensor.dtype and torch.equal(new[name], tensor), name
    copied = {name: data for name, data in before.items() if name.split("/")[0] not in (".git", ".cache", "original")}
    assert after.keys() == copied.keys()
    assert {name for name in after if not name.endswith(".safetensors")} >= {"config.json", "tokenizer/vocab.txt"}
    size = weights()[EDITED].numel() * old[EDITED].element_size()
    changed = [name for name in after if after[name] != copied[name]]
    assert all(name.endswith(".safetensors") for name in changed)
    differing = sum(a != b for name in changed for a, b in zip(after[name], copied[name], strict=True))
    assert 0 < differing <= 2 * size
    assert not any(path.is_symlink() for path in target.rglob("*"))
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_nothing_named_gives_an_exact_copy_that_can_be_rewritten(tmp_path):
    source = cached(tmp_path / "source")
    rewrite_checkpoint(source, tmp_path / "copy", {})
    assert contents(tmp_path / "copy") == {
        name: data
        for name, data in contents(source).items()
        if name.split("/")[0] not in (".git", ".cache", "original")
    }
    rewrite_checkpoint(tmp_path / "copy", tmp_path / "twice", {EDITED: torch.neg})
    assert torch.equal(read_tensor(tmp_path / "twice", EDITED), -read_tensor(source, EDITED))


@pytest.mark.parametrize("make", [single, sharded])
def test_tensors_are_listed_and_read_as_the_library_reads_them(tmp_path, make):
    source = make(tmp_path / "source")
    known = tensors_of(source)
    listed = checkpoint_tensors(source)
    assert listed.keys() == known.keys() - {"ids"}
    for name in [*NAMES, "scale"]:
        assert listed[name].is_meta and listed[name].shape == known[name].shape
        assert listed[name].dtype == known[name].dtype
        tensor = read_tensor(source, name)
        assert tensor.dtype == known[name].dtype and torch.equal(tensor, known[name])


@pytest.mark.parametrize("make, shards", [(single, 1), (sharded, 2), (cached, 2)])
def test_added_tensors_come_in_one_more_shard_and_the_others_keep_their_bytes(tmp_path, make, shards):
    source, target = make(tmp_path / "source"), tmp_path / "target"
    new = {f"model.layers.{layer}.bias": torch.randn(5).bfloat16() for layer in range(3)}
    rewrite_checkpoint(source, target, {}, new)
    names = [f"model-{number:05}-of-{shards + 1:05}.safetensors" for number in range(1, shards + 2)]
    assert sorted(path.name for path in target.glob("*.safetensors")) == names
    old = sorted(source.glob("*.safetensors"))
    assert [(target / name).read_bytes() for name in names[:-1]] == [path.read_bytes() for path in old]
    assert load_file(target / names[-1]).keys() == new.keys()
    after, expected = tensors_of(target), tensors_of(source) | new
    assert after.keys() == expected.keys() and all(torch.equal(after[name], expected[name]) for name in after)
    index = json.loads((target / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in expected.values())
    assert index["weight_map"] == {name: file for file in names for name in load_file(target / file)}
    # A checkpoint like any other: it can be rewritten and added to.
    rewrite_checkpoint(target, tmp_path / "twice", {EDITED: torch.neg}, {"last": torch.ones(2)})
    assert torch.equal(read_tensor(tmp_path / "twice", EDITED), -expected[EDITED])
    assert checkpoint_tensors(tmp_path / "twice").keys() == (expected.keys() | {"last"}) - {"ids"}
    with pytest.raises(ValueError, match=f"{EDITED} is in .* already"):
        rewrite_checkpoint(source, tmp_path / "other", {}, {EDITED: torch.ones(1)})


def test_weights_that_are_not_the_checkpoints_are_left_out(tmp_path):
    source = sharded(tmp_path / "source")
    for name in ("consolidated.safetensors", "model-00001-of-00003.safetensors"):
        save_file({"other": torch.ones(3)}, source / name)
    rewrite_checkpoint(source, tmp_path / "edited", {EDITED: torch.neg})
    assert not (tmp_path / "edited" / "consolidated.safetensors").exists()
    rewrite_checkpoint(source, tmp_path / "more", {}, {"new": torch.ones(3)})
    assert tensors_of(tmp_path / "more").keys() == tensors_of(tmp_path / "edited").keys() | {"new"}
    assert checkpoint_tensors(tmp_path / "more").keys() == (tensors_of(tmp_path / "more").keys()) - {"ids"}


def test_a_wrong_result_or_a_failing_function_leaves_nothing(tmp_path):
    source, target = single(tmp_path / "source"), tmp_path / "target"
    for change in (lambda weight: weight.T, torch.Tensor.double):
        with pytest.raises(ValueError, match=rf"{EDITED} became \[.*must stay \[6, 4\] torch.float32"):
            rewrite_checkpoint(source, target, {EDITED: change})
    with pytest.raises(ZeroDivisionError):
        rewrite_checkpoint(source, target, {EDITED: lambda weight: 1 // 0})
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_unknown_and_quantised_tensors_are_refused_before_anything_is_copied(tmp_path):
    source, target = single(tmp_path / "source"), tmp_path / "target"
    with pytest.raises(
        InputError, match=r"no tensor model.layers.9.self_attn.o_proj.weight; it has model.layers.0.self"
    ):
        rewrite_checkpoint(source, target, {"model.layers.9.self_attn.o_proj.weight": torch.neg})
    with pytest.raises(InputError, match="no tensor nothing"):
        read_tensor(source, "nothing")
    with pytest.raises(InputError, match="ids is stored as I64"):
        rewrite_checkpoint(source, target, {"ids": torch.neg})
    assert not target.exists()


def test_an_existing_or_nested_target_and_a_full_disk_are_refused(tmp_path, monkeypatch):
    source, target = single(tmp_path / "source"), tmp_path / "target"
    for inside in (source, source / "deep" / "new"):
        with pytest.raises(InputError, match="lies inside"):
            rewrite_checkpoint(source, inside, {})
    target.mkdir()
    (target / "mine").write_text("precious")
    with pytest.raises(InputError, match="is there already"):
        rewrite_checkpoint(source, target, {})
    assert contents(target) == {"mine": b"precious"}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 5, 5))
    with pytest.raises(InputError, match=rf"{tmp_path}: the checkpoint takes .* MB, .* 0\.0 MB free: make room"):
        rewrite_checkpoint(source, tmp_path / "new", {})
    assert not (tmp_path / "new").exists()


def break_pickled(source):
    (source / "model.safetensors").rename(source / "pytorch_model.bin")


def break_pointer(source):
    (source / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def break_cut(source):
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def break_empty(source):
    (source / "model.safetensors").unlink()


def break_both(source):
    (source / "model.safetensors.index.json").write_text("{}")


def break_link(source):
    (source / "merges.txt").symlink_to("nowhere")


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (break_pickled, r"only \.bin weights.*safetensors"),
        (break_pointer, "no whole safetensors file"),
        (break_cut, "no whole safetensors file"),
        (break_empty, "neither model.safetensors nor"),
        (break_both, "holds both"),
        (break_link, r"merges\.txt is no file, or a link to nothing"),
        (shutil.rmtree, "is no folder"),
    ],
)
def test_a_broken_source_is_named_with_its_cure(tmp_path, breakage, message):
    source = single(tmp_path / "source")
    breakage(source)
    with pytest.raises(InputError, match=message):
        rewrite_checkpoint(source, tmp_path / "target", {})
    assert not (tmp_path / "target").exists()


def test_an_index_that_disagrees_with_its_shards_is_refused(tmp_path):
    source = sharded(tmp_path / "source")
    path = source / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    for place, message in [
        ("model-00001-of-00002.safetensors", "lacks"),
        ("model-00003-of-00002.safetensors", "00003-of-00002.safetensors is missing"),
        ("../blob.safetensors", "outside the checkpoint"),
    ]:
        path.write_text(json.dumps({"weight_map": index["weight_map"] | {EDITED: place}}))
        with pytest.raises(InputError, match=message):
            checkpoint_tensors(source)
    path.write_text("{}")
    with pytest.raises(InputError, match="no weight_map"):
        checkpoint_tensors(source)


def test_a_link_out_of_a_checkpoint_copies_no_other_file_into_the_edited_model(tmp_path):
    source = sharded(tmp_path / "hub/snapshots/main")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "hub/blobs").mkdir()
    (tmp_path / "hub/blobs/0").write_text("mit")
    (source / "LICENSE").symlink_to("../../blobs/0")  # as the hub's cache has all its files
    rewrite_checkpoint(source, tmp_path / "good", {EDITED: torch.neg})
    assert (tmp_path / "good/LICENSE").read_text() == "mit" and not (tmp_path / "good/LICENSE").is_symlink()
    (source / "NOTICE").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="NOTICE leads out of the checkpoint"):
        rewrite_checkpoint(source, tmp_path / "evil", {EDITED: torch.neg})
    assert not (tmp_path / "evil").exists() or not list((tmp_path / "evil").iterdir())


MEMORY = """
import resource, sys
from pathlib import Path
import torch
from thinksteer.checkpoints import rewrite_checkpoint
torch.neg(torch.ones(4))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
names = [f"model.{index}" for index in range(0, 32, 2)]
rewrite_checkpoint(Path(sys.argv[1]), Path(sys.argv[2]), dict.fromkeys(names, torch.neg))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_the_checkpoint(tmp_path):
    (tmp_path / "source").mkdir()
    tensor = torch.ones(512, 1024)  # 2 MiB each, 64 MiB together
    save_file({f"model.{index}": tensor.clone() for index in range(32)}, tmp_path / "source" / "model.safetensors")
    command = [sys.executable, "-c", MEMORY, tmp_path / "source", tmp_path / "target"]
    root = Path(checkpoints.__file__).parent.parent
    grown = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    assert int(grown) < 16 * 1024  # KiB
    assert torch.equal(read_tensor(tmp_path / "target", "model.30"), -tensor)
    assert torch.equal(read_tensor(tmp_path / "target", "model.31"), tensor)
