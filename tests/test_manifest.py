import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from thinksteer import manifest
from thinksteer.files import lock_path, sha256, write_json
from thinksteer.journal import RecordLog
from thinksteer.manifest import manifest_path, run
from thinksteer.records import InputError

SETTINGS = {"model": "tiny", "weights": (0.1, -0.1), "seed": 7, "data_file": Path("data/a.csv"), "layer": None}


def make(output, settings=SETTINGS, inputs=(), overwrite=False, content="1"):
    """A stage; says whether it had anything to do."""
    with run(output, settings, list(inputs), overwrite) as state:
        if not state.finished:
            write_json(output, content)
        return not state.finished


def read(output):
    return json.loads(manifest_path(output).read_text())


def test_the_manifest_says_what_was_made_from_what(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["3_steer.py", "--seed", "7"])
    root = tmp_path / "art"
    inside, outside = root / "responses" / "m" / "a.json", tmp_path / "mine.csv"
    write_json(inside, 1)
    outside.write_text("q,a")
    output = root / "heads" / "m" / "c.json"
    with run(output, SETTINGS, [inside, outside], overwrite=False) as state:
        assert not state.finished
        during = read(output)
        assert during["finished"] is None and during["started"]
        state.runs_on("H200", "bfloat16")
        assert read(output)["dtype"] == "bfloat16"
        write_json(output, {})
    facts = read(output)
    assert manifest_path(output).name == "c.json.run.json"
    assert facts["command"] == ["3_steer.py", "--seed", "7"] and facts["seed"] == 7
    assert facts["settings"] == SETTINGS | {"weights": [0.1, -0.1], "data_file": "data/a.csv"}
    assert facts["inputs"] == {"responses/m/a.json": sha256(inside), str(outside): sha256(outside)}
    assert facts["versions"]["torch"] == version("torch") and "python" in facts["versions"]
    assert facts["finished"] >= facts["started"] == during["started"]
    assert (facts["device"], facts["dtype"]) == ("H200", "bfloat16") and facts["host"]
    names = {"command", "settings", "seed", "versions", "git_revision", "inputs", "started", "finished", "host"}
    assert facts.keys() == names | {"device", "dtype"}


def test_a_finished_run_is_not_done_again_unless_its_output_is_gone(tmp_path):
    output = tmp_path / "a.json"
    assert make(output)
    before = manifest_path(output).read_bytes()
    assert not make(output)
    assert manifest_path(output).read_bytes() == before
    output.unlink()
    assert make(output)


def test_other_settings_are_refused_and_each_difference_is_listed(tmp_path):
    output = tmp_path / "a.json"
    make(output)
    changed = {"model": "big", "weights": [0.1, -0.1], "seed": 7, "data_file": "data/a.csv", "new": "é"}
    with pytest.raises(InputError) as caught:
        make(output, changed)
    lines = str(caught.value).splitlines()
    assert lines[1:4] == ['  model: "tiny" -> "big"', "  layer: null -> absent", '  new: absent -> "é"']
    assert len(lines) == 5 and "--overwrite" in lines[4]
    assert json.loads(output.read_text()) == "1" and not make(output)


def test_changed_inputs_are_refused_but_moved_ones_are_not(tmp_path):
    output, source = tmp_path / "heads" / "a.json", tmp_path / "responses" / "in.json"
    write_json(source, 1)
    make(output, inputs=[source])
    moved = source.rename(tmp_path / "elsewhere.json")
    assert not make(output, inputs=[moved])
    write_json(source, 2)
    with pytest.raises(InputError, match=r'input responses/in\.json: "[0-9a-f]{64}" -> "[0-9a-f]{64}"'):
        make(output, inputs=[source])


def test_an_interrupted_run_goes_on_with_its_file_and_keeps_its_start(tmp_path):
    output = tmp_path / "a.json"
    with pytest.raises(KeyboardInterrupt), run(output, SETTINGS, [], overwrite=False):
        write_json(output, "half")
        raise KeyboardInterrupt
    assert read(output)["finished"] is None
    facts = read(output) | {"started": "2025-01-01T00:00:00+00:00"}
    write_json(manifest_path(output), facts)
    with pytest.raises(InputError, match="seed: 7 -> 8"):
        make(output, SETTINGS | {"seed": 8})
    with run(output, SETTINGS, [], overwrite=False) as state:
        assert not state.finished and json.loads(output.read_text()) == "half"
    assert read(output)["started"] == "2025-01-01T00:00:00+00:00" and read(output)["finished"]


def begun(output, dtype, times=1):
    """A run in that dtype that is interrupted when it has written, as often as that."""
    for _ in range(times):
        with pytest.raises(KeyboardInterrupt), run(output, SETTINGS, [], overwrite=False) as state:
            if dtype:
                state.runs_on("cpu", dtype)
            output.mkdir() if output.suffix == "" else write_json(output, 1)
            raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_in_its_dtype_alone(tmp_path):
    output = tmp_path / "a.json"
    begun(output, "bfloat16", times=2)
    begun(output, None)  # stopped before its model was loaded
    said = rf"{output} was begun in bfloat16, on this machine the model runs in float32: .*--overwrite"
    with pytest.raises(InputError, match=said), run(output, SETTINGS, [], overwrite=False) as state:
        state.runs_on("cpu", "float32")
    assert read(output)["dtype"] == "bfloat16"
    with run(output, SETTINGS, [], overwrite=False) as state:
        state.runs_on("another cpu", "bfloat16")
    assert (read(output)["device"], read(output)["dtype"]) == ("another cpu", "bfloat16")
    with run(output, SETTINGS, [], overwrite=False) as state:
        assert state.finished  # whatever this machine computes in
    with run(output, SETTINGS, [], overwrite=True) as state:
        state.runs_on("cpu", "float32")
        write_json(output, 1)
    assert read(output)["dtype"] == "float32"


def test_a_folder_and_an_output_begun_before_dtypes_were_recorded_bind_nobody(tmp_path):
    begun(tmp_path / "folder", "bfloat16")
    old = tmp_path / "old.json"
    begun(old, None)
    write_json(manifest_path(old), {name: value for name, value in read(old).items() if name != "dtype"})
    for output in (tmp_path / "folder", old):
        with run(output, SETTINGS, [], overwrite=False) as state:
            state.runs_on("cpu", "float32")
            output.mkdir() if output.suffix == "" else None
        assert read(output)["dtype"] == "float32"


def test_an_interrupted_run_that_wrote_nothing_binds_nobody(tmp_path):
    output = tmp_path / "a.json"
    with pytest.raises(KeyboardInterrupt), run(output, SETTINGS, [], overwrite=False):
        raise KeyboardInterrupt
    assert make(output, {"other": 1})


def test_a_run_that_fails_before_anything_is_made_leaves_no_trace(tmp_path):
    output = tmp_path / "a.jsonl"
    with pytest.raises(InputError), run(output, SETTINGS, [], overwrite=False), RecordLog(output):
        raise InputError("no such model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", [False, True])
def test_what_was_to_be_overwritten_is_back_if_the_new_run_fails_at_once(tmp_path, folder):
    output = tmp_path / "a"
    inner = output / "file" if folder else output

    def overwrite(error: BaseException, content: str | None = None) -> None:
        with pytest.raises(type(error)), run(output, SETTINGS | {"seed": 8}, [], overwrite=True):
            assert not output.exists()
            if content:
                write_json(inner, content)
            raise error

    def files() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    with run(output, SETTINGS, [], overwrite=False):
        write_json(inner, "first")
    before = files()
    overwrite(InputError("too few examples"))
    assert files() == before
    overwrite(KeyboardInterrupt(), "half")  # something is made: the next run may go on with it
    assert json.loads(inner.read_text()) == "half" and read(output)["settings"]["seed"] == 8
    overwrite(InputError("too few examples"))
    assert files() == before
    with run(output, SETTINGS | {"seed": 9}, [], overwrite=True):
        write_json(inner, "new")
    assert sorted(files()) == sorted(before) and json.loads(inner.read_text()) == "new"


def test_an_empty_file_that_a_killed_run_left_binds_nobody_but_one_being_written_does(tmp_path):
    output = tmp_path / "a.jsonl"
    with run(output, SETTINGS, [], overwrite=False):
        write_json(manifest_path(output), read(output) | {"finished": None})
        killed = manifest_path(output).read_bytes()
        output.touch()
    manifest_path(output).write_bytes(killed)
    assert make(output, {"other": 1}) and read(output)["settings"] == {"other": 1}
    with run(tmp_path / "b.jsonl", SETTINGS, [], overwrite=False), RecordLog(tmp_path / "b.jsonl"):
        with pytest.raises(InputError, match="another process"):
            make(tmp_path / "b.jsonl", {"other": 1})
        assert read(tmp_path / "b.jsonl")["settings"] == read(tmp_path / "b.jsonl")["settings"] | {"seed": 7}
    with pytest.raises(InputError, match="was made otherwise"):  # finished, and rightly empty
        make(tmp_path / "b.jsonl", {"other": 1})


def test_what_an_interrupted_run_left_of_a_folder_is_made_again(tmp_path):
    output = tmp_path / "model"
    with pytest.raises(KeyboardInterrupt), run(output, SETTINGS, [], overwrite=False):
        output.mkdir()
        raise KeyboardInterrupt
    with run(output, SETTINGS, [], overwrite=False) as state:
        assert not state.finished and not output.exists()
        output.mkdir()
    with run(output, SETTINGS, [], overwrite=False) as state:
        assert state.finished and output.exists()


@pytest.mark.parametrize("folder", [False, True])
def test_overwrite_begins_anew_also_with_a_broken_manifest(tmp_path, folder):
    output = tmp_path / "a.json"
    for content in ("{", None):
        with run(output, {"x": content}, [], overwrite=True) as state:
            assert not state.finished and not output.exists()
            output.mkdir() if folder else output.write_text("1")
        if content:
            manifest_path(output).write_text(content)
    assert read(output)["settings"] == {"x": None}


def test_an_output_of_unknown_origin_is_refused_and_such_a_folder_is_never_removed(tmp_path):
    output = tmp_path / "model"
    output.mkdir()
    (output / "mine.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"has no model\.run\.json"):
            make(output, overwrite=overwrite)
    assert (output / "mine.txt").read_text() == "precious"
    (tmp_path / "a.json").write_text("1")
    with pytest.raises(InputError, match=r"has no a\.json\.run\.json"):
        make(tmp_path / "a.json")


def test_overwrite_is_refused_while_another_process_writes_the_file(tmp_path):
    output = tmp_path / "a.jsonl"
    with run(output, SETTINGS, [], overwrite=False), RecordLog(output):
        with pytest.raises(InputError, match=rf"{output}: another process is writing"):
            make(output, overwrite=True)
        assert output.exists()


def test_two_runs_never_make_one_output_and_a_killed_ones_lock_is_removed(tmp_path):
    output = tmp_path / "heads" / "a.json"
    with run(output, SETTINGS, [], overwrite=False):
        for overwrite in (False, True):  # nothing is there yet, so that nothing but the lock protects it
            with pytest.raises(InputError, match="another process is writing"):
                make(output, {"other": 1}, overwrite=overwrite)
        write_json(output, "1")
    lock_path(output).touch()  # a killed run's
    assert not make(output) and not lock_path(output).exists()


def test_missing_and_unfinished_inputs_are_refused(tmp_path):
    source = tmp_path / "in.json"
    with pytest.raises(InputError, match=r"in\.json is missing"):
        make(tmp_path / "out.json", inputs=[source])
    with pytest.raises(KeyboardInterrupt), run(source, {}, [], overwrite=False):
        write_json(source, "half")
        raise KeyboardInterrupt
    with pytest.raises(InputError, match=r"in\.json is not finished"):
        make(tmp_path / "out.json", inputs=[source])
    make(source, {})
    assert make(tmp_path / "out.json", inputs=[source])


def test_a_finished_input_that_ends_within_a_line_or_whose_manifest_is_none_is_refused(tmp_path):
    source = tmp_path / "in.jsonl"
    with run(source, {}, [], overwrite=False):
        source.write_text("1\n2\n")
    assert make(tmp_path / "out.json", inputs=[source])
    source.write_text("1\n2")
    with pytest.raises(InputError, match=r"in\.jsonl ends within a line.*--overwrite"):
        make(tmp_path / "out.json", inputs=[source])
    for broken in ("[]", "{}"):
        manifest_path(source).write_text(broken)
        with pytest.raises(InputError, match=r"in\.jsonl\.run\.json is no JSON object with settings, inputs, finished"):
            make(tmp_path / "out.json", inputs=[source])
    manifest_path(source).unlink()  # of a user's own: its last line need not end
    assert make(tmp_path / "new.json", inputs=[source])


@pytest.mark.parametrize(
    "place",
    [
        "annotations/keywords/responses/m/d.json",
        "confidence/responses/m/d.json",
        "layers/m/d.c.json",
        "behaviours/m/d.json",
    ],
)
def test_inputs_are_named_from_the_root_of_the_artifacts(tmp_path, place):
    source = tmp_path / "responses" / "m" / "d.json"
    write_json(source, 1)
    make(tmp_path / place, inputs=[source])
    assert list(read(tmp_path / place)["inputs"]) == ["responses/m/d.json"]


def test_a_record_input_stands_for_all_its_shards(tmp_path):
    for index in range(2):
        (tmp_path / f"r.{index}-of-2.jsonl").write_text("")
    make(tmp_path / "out.json", inputs=[tmp_path / "r.jsonl"])
    assert list(read(tmp_path / "out.json")["inputs"]) == ["r.0-of-2.jsonl", "r.1-of-2.jsonl"]
    (tmp_path / "r.0-of-2.jsonl").unlink()
    with pytest.raises(InputError, match=r"r\.0-of-2\.jsonl missing"):
        make(tmp_path / "new.json", inputs=[tmp_path / "r.jsonl"])


def test_the_git_revision_is_that_of_the_source_tree_and_none_outside_git(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "SOURCE", tmp_path)
    assert manifest._git_revision() is None
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    (tmp_path / "a").write_text("1")
    for arguments in (["init", "-q"], ["add", "a"], ["commit", "-q", "-m", "a"]):
        subprocess.run([*git, *arguments], check=True)
    revision = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert manifest._git_revision() == revision
    (tmp_path / "a").write_text("2")
    assert manifest._git_revision() == f"{revision}-dirty"
    monkeypatch.setenv("PATH", "")
    assert manifest._git_revision() is None
