import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from thinksteer import files
from thinksteer.records import InputError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_that_fails_to_be_written_leaves_the_old_one_and_no_trace(tmp_path):
    path = tmp_path / "sub" / "a.json"
    files.write_json(path, {"x": 1})
    with pytest.raises(KeyError), files.atomic(path) as partial:
        partial.write_text("half")
        raise KeyError
    assert files.read_json(path) == {"x": 1}
    assert names(path.parent) == ["a.json"]


def test_until_it_is_whole_nothing_stands_at_the_path_and_the_suffix_is_kept(tmp_path):
    path = tmp_path / "plot.png"
    with files.atomic(path) as partial:
        partial.write_bytes(b"1")
        assert not path.exists()
        assert partial.suffix == ".png" and partial.parent == path.parent and partial.name.startswith(".plot.")
    assert path.read_bytes() == b"1"


def test_who_reads_the_old_file_still_reads_it_whole_while_it_is_replaced(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, "old")
    with open(path) as reader:
        files.write_json(path, "new")
        assert reader.read() == '"old"\n'
    assert files.read_json(path) == "new"


def test_a_killed_writer_leaves_the_old_file_and_the_next_writer_clears_up(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, "old")
    child = (
        "import os, signal, sys; from pathlib import Path; from thinksteer import files\n"
        "with files.atomic(Path(sys.argv[1])) as partial, files.atomic_folder(Path(sys.argv[2])) as folder:\n"
        "    partial.write_text('half'); (folder / 'x').write_text('half')\n"
        "    with files.atomic_folder(folder) as inner:\n"
        "        (inner / 'y').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    target = tmp_path / "folder-1.5b"
    dead = subprocess.run([sys.executable, "-c", child, path, target], cwd=Path(files.__file__).parent.parent)
    assert dead.returncode == -9
    assert files.read_json(path) == "old" and not target.exists()
    assert len(names(tmp_path)) == 3
    files.write_json(path, "new")
    with files.atomic_folder(target) as folder:
        (folder / "x").write_text("whole")
    assert names(tmp_path) == ["a.json", "folder-1.5b"]
    assert files.read_json(path) == "new" and (target / "x").read_text() == "whole"


def test_a_living_writers_partial_file_is_left_alone(tmp_path):
    with files.atomic(tmp_path / "a.json") as mine:
        other = mine.with_name(mine.name.replace(f"-{os.getpid()}.", f"-{os.getppid()}."))
        other.write_text("theirs")
        mine.write_text("1")
        files.write_json(tmp_path / "b.json", 1)
    with files.atomic(tmp_path / "a.json") as mine:
        mine.write_text("2")
    assert other.read_text() == "theirs"


def test_a_folder_appears_whole_and_is_never_replaced(tmp_path):
    target = tmp_path / "model"
    with pytest.raises(KeyError), files.atomic_folder(target) as folder:
        (folder / "weights").write_text("half")
        raise KeyError
    assert names(tmp_path) == []
    with files.atomic_folder(target) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "weights").write_text("whole")
    assert (target / "deep" / "weights").read_text() == "whole"
    with pytest.raises(InputError, match="model is there already"), files.atomic_folder(target):
        pass


def test_what_is_made_by_one_process_is_refused_to_others_and_a_killed_ones_lock_is_taken_over(tmp_path):
    path = tmp_path / "new" / "a.json"
    child = (
        "import os, signal, sys; from pathlib import Path; from thinksteer import files\n"
        "with files.alone(Path(sys.argv[1])):\n"
        "    print('locked', flush=True); sys.stdin.read(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command, root = [sys.executable, "-c", child, path], Path(files.__file__).parent.parent
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(InputError, match=f"{path}: another process is writing it"), files.alone(path):
            pass
        process.stdin.close()
    assert process.returncode == -9 and names(path.parent) == [".a.json.lock"]
    with files.alone(path), files.alone(tmp_path / "new" / "b.json"):
        assert len(names(path.parent)) == 2
    assert names(path.parent) == []


def test_what_the_disk_refuses_names_the_artifact_but_not_for_other_files(tmp_path):
    path, no_space = tmp_path / "a.json", OSError(errno.ENOSPC, "full")
    for error in (no_space, OSError(errno.ENOSPC, "full", "source", None, str(tmp_path / ".a.7.partial.json"))):
        with pytest.raises(OSError, match="full") as caught, files.atomic(path):
            raise error
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    with pytest.raises(FileNotFoundError) as missing, files.atomic(path):
        (tmp_path / "source").read_text()
    assert missing.value.filename == str(tmp_path / "source")
    with pytest.raises(OSError, match="not of the disk"), files.atomic(path):
        raise OSError("not of the disk")


def test_json_round_trips_text_of_any_kind_and_refuses_what_is_no_number(tmp_path):
    value = {"<｜User｜>": ["é\u2028", "\ud800", None, 0.1]}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value
    assert "<｜User｜>" in (tmp_path / "a.json").read_text(encoding="utf-8")
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "a.json", float("nan"))
    assert files.read_json(tmp_path / "a.json") == value


def test_missing_and_broken_files_are_named(tmp_path):
    for read, name in [(files.read_json, "a.json"), (files.read_safetensors, "a.safetensors")]:
        path = tmp_path / name
        with pytest.raises(InputError, match=f"{name} is missing"):
            read(path)
        path.write_bytes(b'{"x": ')
        with pytest.raises(InputError, match=f"{name} is not"):
            read(path)


def test_safetensors_round_trip_any_stride_and_dtype_with_metadata(tmp_path):
    wide = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    tensors = {"direction": wide.T, "row": wide[1], "half": wide.to(torch.bfloat16).requires_grad_()}
    files.write_safetensors(tmp_path / "a.safetensors", tensors, {"site": "mid", "n": "3"})
    read, metadata = files.read_safetensors(tmp_path / "a.safetensors")
    assert metadata == {"site": "mid", "n": "3"}
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) and read[name].dtype == tensors[name].dtype for name in tensors)
    files.write_safetensors(tmp_path / "b.safetensors", {"x": wide}, {})
    assert files.read_safetensors(tmp_path / "b.safetensors")[1] == {}


def test_equal_tensors_and_metadata_give_equal_bytes(tmp_path):
    tensors, metadata = {"b": torch.ones(3), "a": torch.zeros(2)}, {letter: letter for letter in "qwertyuiop"}
    for index in range(5):
        files.write_safetensors(tmp_path / str(index), tensors, metadata)
        tensors, metadata = dict(reversed(tensors.items())), dict(reversed(metadata.items()))
    assert len({(tmp_path / str(index)).read_bytes() for index in range(5)}) == 1


def test_sha256_is_the_standard_one_also_over_many_blocks(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "b").write_bytes(b"a" * 1_000_000 + b"a" * 2_000_000)
    expected = subprocess.run(["sha256sum", tmp_path / "b"], capture_output=True, text=True, check=True).stdout.split()[
        0
    ]
    assert files.sha256(tmp_path / "b") == expected


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_tensor_file_is_named_whatever_the_damage_does_to_its_pickle():
    stream = io.BytesIO()
    torch.save({"layers.1": torch.ones(3)}, stream)
    whole = stream.getvalue()
    assert torch.equal(files.load_torch(whole, "v.pt")["layers.1"], torch.ones(3))
    start = whole.index(b"\x80\x02")  # of the pickle
    refused = 0
    for place in range(start + 2, start + 200):  # behind the mark of the protocol
        for byte in (0x00, 0x80, 0xFF):
            try:
                files.load_torch(whole[:place] + bytes([byte]) + whole[place + 1 :], "v.pt")
            except InputError as error:
                assert str(error).startswith("v.pt is no tensor file")
                refused += 1
    assert refused > 100
