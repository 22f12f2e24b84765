"""scripts/set_up.sh and the package's own check: which Python runs the project, and what is said of any other."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STARTED = [*ROOT.glob("*.py"), *ROOT.glob("scripts/*.py"), ROOT / "thinksteer/__init__.py"]
OLD = "#!/bin/sh\nexit 1\n"  # Whatever it is asked, as an older Python answers the question for its version.
FITS = f'#!/bin/sh\nif [ "$1" = -m ]; then echo "$0 $*"; exit 7; fi\nexec {sys.executable} "$@"\n'


def set_up(folder: Path, pythons: dict[str, str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Set up with these Pythons on PATH, and nothing else but what the shell needs."""
    folder.mkdir(exist_ok=True)
    for name, text in pythons.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    for tool in ("cat", "cksum", "dirname", "grep", "sh"):
        (folder / tool).symlink_to(f"/bin/{tool}" if Path(f"/bin/{tool}").exists() else f"/usr/bin/{tool}")
    command = f"set -e; source {ROOT}/scripts/set_up.sh requirements-common.txt; echo went on"
    environment = {"PATH": str(folder), "THINKSTEER_VENV": str(folder / "venv")} | environment
    return subprocess.run(["/bin/bash", "-c", command], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(
    "pythons, chosen",
    [
        ({"python3": FITS, "python3.13": FITS}, "python3"),
        ({"python3": OLD, "python3.11": FITS, "python3.12": FITS}, "python3.12"),
        ({"python3.14": OLD, "python3.11": FITS}, "python3.11"),
    ],
)
def test_set_up_takes_the_first_python_that_fits(tmp_path, pythons, chosen):
    done = set_up(tmp_path, pythons)
    assert done.stdout.splitlines()[-1] == f"{tmp_path}/{chosen} -m venv {tmp_path}/venv", done.stderr
    assert done.returncode == 7


@pytest.mark.parametrize("pythons", [{}, {"python3": OLD}, {"python3": OLD, "python3.12": OLD}])
def test_set_up_says_in_one_line_that_no_python_fits(tmp_path, pythons):
    done = set_up(tmp_path, pythons)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "no Python 3.11 to 3.14 with venv among python3 python3.14" in done.stderr


def test_set_up_takes_the_python_that_is_named_or_none(tmp_path):
    pythons = {"python3": FITS, "old python": OLD, "new python": FITS}
    done = set_up(tmp_path / "new", pythons, PYTHON=f"{tmp_path}/new/new python")
    assert done.stdout.splitlines()[-1].startswith(f"{tmp_path}/new/new python -m venv"), done.stderr
    done = set_up(tmp_path / "old", pythons, PYTHON=f"{tmp_path}/old/old python")
    assert done.returncode == 2
    assert f"among {tmp_path}/old/old python: install one" in done.stderr


def test_set_up_refuses_an_environment_of_an_older_python(tmp_path):
    (tmp_path / "venv/bin").mkdir(parents=True)
    old = tmp_path / "venv/bin/python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.10.13\n')
    old.chmod(0o755)
    done = set_up(tmp_path, {"python3": FITS})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: {tmp_path}/venv is of Python 3.10.13, not of Python 3.11 to 3.14: remove it, then run this again\n"
    )


@pytest.mark.parametrize("stage", sorted(path.name for path in ROOT.glob("*.py")))
def test_a_stage_on_an_older_python_says_so_in_one_line(stage):
    older = f"import runpy, sys; sys.version_info = (3, 10, 13); runpy.run_path({stage!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", older], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr == (
        "error: this is Python 3.10, and thinksteer needs 3.11 or newer: "
        "source scripts/set_up.sh requirements-common.txt\n"
    )


@pytest.mark.parametrize("path", STARTED, ids=lambda path: path.name)
def test_what_is_started_can_be_read_by_an_older_python(path):
    ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))


def test_the_version_is_stated_where_pip_and_ruff_look():
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert stated == ">=3.11"
