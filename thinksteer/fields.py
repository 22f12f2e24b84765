"""Values of JSON files that others wrote, each with its path in the file, read with their type or refused by name."""

from __future__ import annotations

import reprlib
import sys
from dataclasses import dataclass
from typing import Any, NoReturn

LARGEST = 2**53  # beyond it a float does not hold every whole number


class Misfit(ValueError):
    """A value is of another type than its place in the file asks for. The message names the place and the value."""


@dataclass(frozen=True)
class Field:
    """A value and the path that leads to it, such as `[3].thinking_length`. Every method raises Misfit if it is not
    what the method gives."""

    value: Any
    path: str = ""

    def __getitem__(self, name: str) -> Field:
        if not isinstance(self.value, dict):
            self.fail("an object")
        if name not in self.value:
            raise Misfit(f"{self.path or 'the file'} has no {name!r}")
        return Field(self.value[name], f"{self.path}.{name}".removeprefix("."))

    def items(self) -> list[Field]:
        if not isinstance(self.value, list):
            self.fail("a list")
        return [Field(one, f"{self.path}[{index}]") for index, one in enumerate(self.value)]

    def text(self) -> str:
        """Text that a tokenizer reads: no half of a surrogate pair is in it."""
        if not isinstance(self.value, str):
            self.fail("text")
        try:
            self.value.encode()
        except UnicodeEncodeError:
            self.fail("text (it holds half a character)")
        return self.value

    def answer(self) -> str:
        """Text, or a finite number as text."""
        if type(self.value) not in (int, float):
            return self.text()
        self.number()
        return str(self.value)

    def number(self) -> float:
        """A finite number; true and false are none."""
        # math.isfinite raises for whole numbers of hundreds of digits.
        if type(self.value) not in (int, float) or not abs(self.value) <= sys.float_info.max:
            self.fail("a finite number")
        return float(self.value)

    def count(self, least: int = 0) -> int:
        """A whole number, also one written as a float (6.0)."""
        value = self.value
        if type(value) not in (int, float) or not least <= value <= LARGEST or value != int(value):
            self.fail(f"a whole number of {least} or more")
        return int(value)

    def flag(self) -> bool:
        """true or false, also as 1 or 0."""
        if type(self.value) not in (bool, int) or self.value not in (0, 1):
            self.fail("true or false")
        return bool(self.value)

    def fail(self, wanted: str) -> NoReturn:
        shown = " ".join(reprlib.repr(self.value).split())
        raise Misfit(f"{self.path or 'the file'} is {shown}, not {wanted}")
