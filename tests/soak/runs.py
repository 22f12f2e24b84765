"""Runs of scripts that can be killed at a chosen moment, forked from this process, which has imported everything."""

import atexit
import faulthandler
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from thinksteer import cli

UNITS = ("s", "lines", "operation", "operation after")
MARK = "THINKSTEER_SOAK"  # in the environment of all that a run starts
PATIENCE_S = 120.0  # with a run that hangs


@dataclass(frozen=True)
class Kill:
    """The signal, and when: `amount` seconds after the start, lines of logs after it, or operations on files; `delay_s`
    later. With the unit "operation" the process kills itself right before it."""

    signal: signal.Signals
    unit: str
    amount: float
    delay_s: float = 0.0

    def __str__(self) -> str:
        late = f" + {1e3 * self.delay_s:.1f} ms" if self.delay_s else ""
        return f"{self.signal.name} at {self.unit} {self.amount:.4g}{late}"


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit status or minus its signal, what it took by unit, and what it said on stderr."""

    status: int
    taken: dict[str, float]
    said: str


def run(main: Callable[[], None], command: Sequence[str], root: Path, kill: Kill | None = None) -> Ended:
    """Run a script's `main` with a command line to its end, or until it is killed; it writes below `root`."""
    started, before = time.monotonic(), _lines(root)
    operations, status, sent = 0, None, kill is None or kill.unit == "operation"
    seen, told = os.pipe()
    with tempfile.TemporaryFile() as said:
        pid = os.fork()
        if not pid:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(said.fileno(), 2)
            _become(main, [*command], str(root), told, kill)
        os.close(told)
        while status is None:
            if select.select([seen], [], [], 0.002)[0]:
                operations += len(os.read(seen, 1))
            seconds = time.monotonic() - started
            if not sent and _reached(kill, seconds, operations, root, before):
                time.sleep(kill.delay_s)
                os.kill(pid, kill.signal)
                sent = True
            if seconds > PATIENCE_S:
                os.kill(pid, signal.SIGABRT)
            ended, code = os.waitpid(pid, os.WNOHANG)
            status = os.waitstatus_to_exitcode(code) if ended else None
        os.close(seen)
        said.seek(0)
        text = said.read().decode(errors="replace")
    lines = _lines(root) - before
    return Ended(status, {"s": seconds, "lines": lines, "operation": operations, "operation after": operations}, text)


def _lines(root: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in root.rglob("*.jsonl"))


def _reached(kill: Kill, seconds: float, operations: int, root: Path, before: int) -> bool:
    if kill.unit == "lines":
        return _lines(root) - before >= kill.amount
    return (seconds if kill.unit == "s" else operations) >= kill.amount


def _become(main: Callable[[], None], command: list[str], root: str, told: int, kill: Kill | None) -> NoReturn:
    """Do, in the forked process, what a new Python with this command would. A byte goes to `told` at each operation."""
    os.setsid()
    atexit._clear()
    os.environ[MARK] = root
    faulthandler.enable()  # says where a run hangs
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where this runs in the background
    heard = 0

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal heard
        if _operates(event, arguments, root):
            heard += 1
            if kill and kill.unit == "operation" and heard == kill.amount:
                os.kill(os.getpid(), kill.signal)
            os.write(told, b".")

    code: object = 1
    try:
        sys.argv = command
        sys.addaudithook(hear)
        cli.run(main)
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()
    os._exit(code if isinstance(code, int) else 1)


def _operates(event: str, arguments: tuple[Any, ...], root: str) -> bool:
    """Whether it is about to write or flush a file below `root`, or to make, rename or remove one."""
    if event == "open":
        path, mode, _ = arguments  # no mode: `os.open`, by which files and folders are flushed
        return str(path).startswith(root) and (mode is None or not set(mode).isdisjoint("wax+"))
    if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
        return str(arguments[0]).startswith(root) or arguments[-1] not in (-1, None)  # else relative to a folder in it
    return False


def left_behind(root: Path) -> list[str]:
    """The processes that runs have started and left, as their names."""
    mark, names = f"{MARK}={root}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int(process.name) != os.getpid() and mark in (process / "environ").read_bytes().split(b"\0"):
                names.append((process / "comm").read_text().strip())
        except OSError:  # gone, or another user's
            continue
    return names
