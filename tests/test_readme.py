"""The commands of the README and of docs/ exist and their files are there, and every script explains itself."""

import re
import shlex
import sys
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCRIPTS = sorted(path.relative_to(ROOT) for path in [*ROOT.glob("*.py"), *(ROOT / "scripts").glob("*.py")])
PAGES = {path: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
COMMANDS = [
    command
    for text in PAGES.values()
    for command in re.findall(r"python ((?:-m scripts\.\w+|\w+\.py)(?:\\\n|[^`#|\n\\])*)", text)
]


def called(script: Path) -> str:
    """How a script is called: `generate_responses.py`, `-m scripts.import_upstream`."""
    return script.name if script.parent == Path(".") else f"-m scripts.{script.stem}"


@pytest.fixture(scope="module")
def usages() -> dict[str, str]:
    """What each script prints for --help, all in this process: a fresh one each would import PyTorch every time."""
    return {called(script): usage(script) for script in SCRIPTS}


def usage(script: Path) -> str:
    main = import_module(".".join(script.with_suffix("").parts)).main
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out, pytest.raises(SystemExit) as end:
        patch.setenv("COLUMNS", "200")
        patch.setattr(sys, "argv", [script.name, "--help"])
        main()
    assert end.value.code == 0
    return out.getvalue()


def test_every_script_says_how_it_is_called_what_it_reads_and_what_it_writes(usages):
    for script, text in usages.items():
        assert "Reads " in text and "Writes " in text, script
        assert f"python {script}" in text, script


def test_every_command_names_a_script_and_flags_that_exist(usages):
    assert len(COMMANDS) > 10
    for command in COMMANDS:
        script, *words = shlex.split(command.replace("\\\n", " "))
        if script == "-m":
            script = f"-m {words.pop(0)}"
        for word in words:
            if word.startswith("--"):
                assert word in usages[script], (command, word)


def test_every_stage_is_in_the_readme():
    for script in SCRIPTS:
        if script.parent == Path("."):
            assert f"`python {script}" in README, script


def test_every_local_link_leads_somewhere():
    for page, text in PAGES.items():
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (page.parent / target).exists(), target


def test_every_shell_script_is_there():
    for script in re.findall(r"bash (scripts/\w+\.sh)", "\n".join(PAGES.values())):
        assert (ROOT / script).exists(), script
