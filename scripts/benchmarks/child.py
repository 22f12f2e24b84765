"""Runs a function in this fresh process and says what it cost.

    python -m scripts.benchmarks.child <module>:<function> <its flags>

What it prints goes to stderr; stdout has one JSON object, see `Cost` of `scripts.benchmarks.measuring`.
"""

import contextlib
import json
import re
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Literal


def held(what: Literal["VmRSS", "VmHWM"]) -> float:
    """MB of memory that this process holds, or the most that it held. `getrusage` counts its parent's, too."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def main() -> None:
    module, _, function = sys.argv.pop(1).partition(":")
    with contextlib.redirect_stdout(sys.stderr):
        work = getattr(import_module(module), function)
        begin = time.perf_counter()
        work()
        wall = time.perf_counter() - begin
    print(json.dumps({"wall": wall, "cpu": time.process_time(), "peak": held("VmHWM")}))


if __name__ == "__main__":
    main()
