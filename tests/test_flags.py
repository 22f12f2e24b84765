"""Messages advise flags: each that one names is there, in the script that says it or in one that can say it."""

import ast
import re
import sys
from argparse import ArgumentParser
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from test_bad_input import SCRIPTS
from test_imports import MODULES, imports, reached

from thinksteer.flags import UpTo

ROOT = Path(__file__).parent.parent
FLAG = re.compile(r"(?<![\w-])--[a-z]\w+")


class Parsed(Exception):
    """The parser of a script, caught before it reads the command line."""


@cache
def flags(script: Path) -> frozenset[str]:
    """All flags of a script."""

    def caught(parser: ArgumentParser, *_: object) -> None:
        raise Parsed(parser)

    module = ".".join(script.relative_to(ROOT).with_suffix("").parts)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Parsed) as parsed:
        patch.setattr(ArgumentParser, "parse_args", caught)
        patch.setattr(sys, "argv", [script.name])
        import_module(module).main()
    return frozenset(parsed.value.args[0]._option_string_actions)


def advised(path: Path) -> dict[str, str]:
    """The flags that a file's messages name, but in commands of other scripts, each with the message's words.

    A message is what an error is made of, or a value of a dict, where cures are listed.
    """
    found = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        called = node.func if isinstance(node, ast.Call) else None
        name = getattr(called, "id", None) or getattr(called, "attr", "")
        if name == "error" or name.endswith("Error") or isinstance(node, ast.Dict):
            parts = [
                one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)
            ]
            text = re.sub(r"python .*", "", " ".join(parts))
            found |= {flag: text for flag in FLAG.findall(text)}
    return found


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_advises_flags_of_its_own(script: Path) -> None:
    assert {flag: text for flag, text in advised(script).items() if flag not in flags(script)} == {}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_advises_flags_that_a_script_which_uses_it_has(module: str) -> None:
    named, by_name = advised(MODULES[module]), module.startswith("thinksteer.engines.")
    users = [script for script in SCRIPTS if any(module in {one, *reached(one)} for one in used(script))]
    there = frozenset().union(*map(flags, SCRIPTS if by_name else users if named else ()))  # engines are imported so
    assert {flag: text for flag, text in named.items() if flag not in there} == {}


@cache
def used(script: Path) -> frozenset[str]:
    return frozenset(imports(script) & MODULES.keys())


def test_a_default_up_to_a_number_is_that_number() -> None:
    assert UpTo(5) == 5 and str(UpTo(5)) == "5" and isinstance(UpTo(5), int)
