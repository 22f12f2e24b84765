"""Values of command-line flags, checked."""

import argparse
import json
import math
from contextlib import suppress
from typing import Any


class UpTo(int):
    """A default for a number of things: so many or, where there are fewer, all of them."""


def positive_int(text: str) -> int:
    return _int(text, least=1)


def natural_int(text: str) -> int:
    return _int(text, least=0)


def finite_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def natural_float(text: str) -> float:
    value = finite_float(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def share(text: str) -> float:
    value = finite_float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def shard(text: str) -> tuple[int, int]:
    """ "i/n" -> (i, n)."""
    index, slash, count = text.partition("/")
    if not slash or not index.isdecimal() or not count.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form I/N, such as 0/4")
    if int(index) >= int(count):
        raise argparse.ArgumentTypeError(f"{text!r}: I counts from 0 and stays below N")
    return int(index), int(count)


def json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'{text!r} is no JSON object, such as {{"enable_thinking": false}}')
    return value


def setting(text: str) -> tuple[str, Any]:
    """ "key=value" -> (key, value): a value of JSON, True or False, or text."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form KEY=VALUE")
    with suppress(ValueError):
        return key, json.loads(value.lower() if value in ("True", "False") else value)
    return key, value


def _int(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"{text} is below {least}")
    return value
