"""The README's commands on the embedded model, copied one by one in its order into an empty folder, all work.

They run in this process, and are asked fewer questions than there.
"""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
STAGES = re.findall(r"^\| \d \| `(python [^`]+)` \|", TEXT, re.MULTILINE)
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
ELSEWHERE = ("$M", "deepseek", "--engine vllm", "example.org", "bash scripts/")
"""What marks the blocks about checkpoints that are not here, and those that set up and run everything."""
FEWER = {"generate_responses.py": "160", "steer_eval.py": "8", "evaluate_models.py": "30"}
FLAGS = {"evaluate_models.py": ["--n_samples", "2"], "generate_responses.py": [], "steer_eval.py": []}


def commands():
    """Each command's words, as a shell would make them, in the order of the README."""
    found, values = [shlex.split(command) for command in STAGES], {}
    for block in BLOCKS:
        if not any(mark in block for mark in ELSEWHERE):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if len(words) == 1 and "=" in words[0]:
                    name, _, values[f"${name}"] = words[0].partition("=")
                elif words:
                    found.append([values.get(word, word) for word in words])
    return found


def fewer(script: str, words: list[str]) -> list[str]:
    if script not in FEWER or "288" in words:  # the facts are few already
        return words
    if "--n_questions" in words:
        at = words.index("--n_questions")
        words = words[:at] + words[at + 2 :]
    return [*words, "--n_questions", FEWER[script], *FLAGS[script]]


def run(words: list[str]) -> object:
    """What a command exits with, in this process."""
    python, script, *rest = words
    assert python == "python"
    if script == "-m":
        module, *rest = rest
        script = f"{module.replace('.', '/')}.py"
    files = {word: sorted(map(str, Path().glob(word))) for word in rest if word.startswith("artifacts/")}
    argv = [part for word in rest for part in files.get(word, [word])]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", [script, *fewer(script, argv)])
        runpy.run_path(str(ROOT / script), run_name="__main__")
    return end.value.code


def test_every_command_works_after_those_before_it(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    asked = commands()
    assert len(asked) > 20
    for words in asked:
        assert run(words) == 0, (shlex.join(words), capfd.readouterr().err[-600:])
    made = {path.name for path in (tmp_path / "artifacts").iterdir()}
    assert made >= {"responses", "directions", "steering", "heads", "models", "evaluations", "reports", "levels"}
    assert made >= {"annotations", "behaviours", "layers", "confidence"}
