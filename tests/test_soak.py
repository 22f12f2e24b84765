"""What is killed, finds the disk full or is done twice at a time ends as if nothing had happened: a small soak.

`python -m tests.soak` does as much of it as one likes.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.soak.runs import Kill, run
from thinksteer import manifest
from thinksteer.files import read_json, write_json
from thinksteer.manifest import manifest_path
from thinksteer.records import InputError

ROOT = Path(__file__).parent.parent


def test_every_stage_ends_as_if_it_had_not_been_disturbed():
    """Ten kills, ten full or read-only disks and three commands given twice, spread over all steps."""
    command = [sys.executable, "-m", "tests.soak", "--kills", "10", "--full_disks", "10", "--twice", "3", "--seed", "4"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    last = done.stdout.splitlines()[-1]
    assert last.startswith("0 lost, 0 doubled, all the same after 10 kills")
    if "none may be mounted" in last:
        pytest.skip("no disk may be mounted here, so none was full; kills and second processes did no harm")
    assert "10 read-only disks" in last


def stage(output: Path, inner: Path, content: str, overwrite: bool) -> None:
    """Make an artifact that is, or has in it, the file `inner`."""
    with manifest.run(output, {"content": content}, [], overwrite) as state:
        if content == "fails":
            raise InputError("too few examples")
        if not state.finished:
            write_json(inner, content)


@pytest.mark.parametrize("inner", ["a", "a/deep/file"])
def test_what_is_to_be_overwritten_is_whole_or_replaced_wherever_the_run_is_killed(tmp_path, inner, monkeypatch):
    """Before each operation on a file, one after the other; the next run may fail, go on, or begin once more."""
    monkeypatch.setattr(manifest, "SOURCE", tmp_path)  # not in git, which would be asked each time
    stage(tmp_path / "old" / "a", tmp_path / "old" / inner, "old", False)
    at, status = 0, -signal.SIGKILL
    while status:
        at += 1
        killed = shutil.copytree(tmp_path / "old", tmp_path / f"{at}")
        main = partial(stage, killed / "a", killed / inner, "new", True)
        status = run(main, ["stage"], killed, Kill(signal.SIGKILL, "operation", at)).status
        assert status in (0, -signal.SIGKILL)
        for content, overwrite, ends in (
            ("fails", True, ("old refused", "new refused")),
            ("new", False, ("old refused", "new")),
            ("new", True, ("new",)),
        ):
            root = shutil.copytree(killed, tmp_path / f"{at}-{content}-{overwrite}")
            try:
                stage(root / "a", root / inner, content, overwrite)
                refused = ""
            except InputError:
                refused = " refused"
            assert json.loads((root / inner).read_text()) + refused in ends
            assert read_json(manifest_path(root / "a"))["finished"]
            names = {one.name for one in root.iterdir() if not (refused and ".partial" in one.name)}
            assert names == {"a", "a.run.json"}  # half of a file is removed when that file is written
    assert at > 15
