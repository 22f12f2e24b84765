"""One step of the pipeline, disturbed in every way, and what must be true after each."""

import importlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.soak.runs import UNITS, Ended, Kill, left_behind, run
from tests.soak.trees import differences, faults, shown, size, tree
from thinksteer import cli
from thinksteer.lines import cut

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
YEAR = re.compile(r'(?<="started": ")\d{4}|(?<="finished": ")\d{4}')
TORN = 3000  # bytes at most


class Broken(Exception):
    """Something was lost, doubled, half-written, left over or said wrongly."""


def require(right: object, text: str) -> None:
    if not right:
        raise Broken(text)


class Step:
    """A command (module and flags), done undisturbed in `whole`, to be done in `root`, whose copy is `earlier`."""

    def __init__(self, name: str, command: Sequence[str], whole: Path, root: Path, rng: random.Random) -> None:
        self.name, self.command, self.root, self.random = name, command, root, rng
        self.earlier = whole.with_name("earlier")
        if self.earlier.exists():
            shutil.rmtree(self.earlier)
        shutil.copytree(root, self.earlier)
        self.before = tree(root)
        self.plain = self.run(whole)
        require(self.plain.status == 0, f"{name} fails: {self.plain.said}")
        self.wanted = tree(whole)
        self.needed = size(whole) - size(self.earlier)
        print(f"{name}: undisturbed", ", ".join(f"{amount:.4g} {unit}" for unit, amount in self.plain.taken.items()))

    def run(self, root: Path, kill: Kill | None = None, *more: str) -> Ended:
        command = [*self.command, *more, "--artifacts", str(root)]
        return run(importlib.import_module(command[0]).main, command, root, kill)

    def begin(self) -> None:
        """Make `root` what it was before the step."""
        for one in self.root.iterdir():
            shutil.rmtree(one)
        shutil.copytree(self.earlier, self.root, dirs_exist_ok=True)

    def finish(self, what: str) -> None:
        """Let the same command go on, and compare."""
        ended = self.run(self.root)
        require(ended.status == 0, f"{self.name} does not go on after {what}, status {ended.status}: {ended.said}")
        told = differences(tree(self.root), self.wanted)
        require(not told, f"{self.name} after {what}: " + "; ".join(told))

    def look(self, what: str) -> str:
        """How far it has come; nothing half, nothing wrong, and no process left."""
        found = tree(self.root)
        text = shown(found, self.before, self.wanted)
        told = faults(found, self.before, self.wanted)
        require(not told, f"{self.name}, {what}, {text}: " + "; ".join(told))
        deadline = time.monotonic() + 20
        while names := left_behind(self.root):
            require(time.monotonic() < deadline, f"{self.name}, {what}: {names} go on")
            time.sleep(0.02)
        return text

    def kills(self, number: int) -> Counter[str]:
        """Kill it so often, in rounds of a few kills in a row, from its beginning or, by --overwrite, from its end."""
        done: Counter[str] = Counter()
        while done["kills"] < number:
            anew = ["--overwrite"] if done["kills"] and self.random.random() < 0.3 else []
            if not anew:
                self.begin()
            for _ in range(min(number - done["kills"], self.random.randint(1, 4))):
                kill = self.moment()
                ended = self.run(self.root, kill, *anew)
                if ended.status == 0:
                    done["too late"] += 1
                    break
                self.require_stopped(kill, ended)
                done += Counter(["kills", f"of them {kill.signal.name}", f"by {kill.unit}"])
                text = self.look(str(kill))
                print("  ", done["kills"], self.name, *anew, f"{kill}: {text}{self.tear()}", flush=True)
                self.unsettle()
                anew = []
            self.finish("kills")
        return done

    def moment(self) -> Kill:
        unit = self.random.choice([unit for unit in UNITS if self.plain.taken[unit]])
        amount = self.random.uniform(0, self.plain.taken[unit])
        delay = self.random.uniform(0, 0.003) if unit == "operation after" else 0.0
        return Kill(self.random.choice(SIGNALS), unit, amount if unit == "s" else 1 + int(amount), delay)

    def require_stopped(self, kill: Kill, ended: Ended) -> None:
        """It died of SIGKILL, or said in one line that it stops, with the status that says so."""
        right = ended.status == -kill.signal
        if kill.signal != signal.SIGKILL:
            said = [line for line in ended.said.splitlines() if line.startswith("stopped; run the same command")]
            right = ended.status == cli.STOPPED and len(said) == 1 and "Traceback" not in ended.said
        require(right, f"{self.name}, {kill}: status {ended.status}: {ended.said}")

    def tear(self) -> str:
        """Take a random number of bytes off the end of a log that is not finished, half of the times."""
        logs = [log for log in sorted(self.root.rglob("*.jsonl")) if log.stat().st_size and not is_finished(log)]
        if not logs or self.random.random() < 0.5:
            return ""
        whole = logs[-1].stat().st_size
        torn = min(whole, self.random.randint(1, TORN))
        os.truncate(logs[-1], whole - torn)
        return f"; {torn} bytes torn off {logs[-1].name}"

    def unsettle(self) -> None:
        """Move the times of all files, and those in manifests, by up to a century."""
        for file in self.root.rglob("*"):
            if file.name.endswith(".run.json") and not file.name.startswith("."):
                file.write_text(YEAR.sub(str(self.random.randint(1970, 2090)), file.read_text()))
            os.utime(file, (self.random.uniform(0, 4e9),) * 2)

    def full_disks(self, number: int) -> Counter[str]:
        """Run it on disks that are full after a random number of bytes, then on larger ones; and read-only once."""
        done: Counter[str] = Counter()
        for index in range(number):
            limit = size(self.earlier) + self.random.randint(0, self.needed)
            option, back, cure = f"size={limit}", "size=200m", "make room"
            if index == number - 1:
                option, back, cure = "ro", "rw", "give a path that can be written to"
            self.begin()
            remount(self.root, option)
            ended = self.run(self.root)
            remount(self.root, back)
            if ended.status:
                self.require_refused(ended, option, cure)
                done["read-only disks" if option == "ro" else "full disks"] += 1
            self.finish(option)
        return done

    def require_refused(self, ended: Ended, what: str, cure: str) -> None:
        """It said in one line which of its files could not be written, and what to do, and left no half of a line."""
        lines = [line for line in ended.said.splitlines() if "error" in line.lower()]
        right = ended.status == cli.USAGE and len(lines) == 1 and "Traceback" not in ended.said
        right = right and lines[0].startswith(f"error: {self.root}/") and cure in lines[0]
        right = right and not any(map(cut, self.root.rglob("*.jsonl")))
        require(right, f"{self.name}, {what}: status {ended.status}: {ended.said}")
        print(f"   {self.name}, {what}: {self.look(what)}; {lines[0].replace(str(self.root), '')}", flush=True)

    def twice(self, number: int) -> Counter[str]:
        """Give the same command twice at a time: one does it, the other is refused, or finds it done."""
        done: Counter[str] = Counter()
        for _ in range(number):
            self.begin()
            other = os.fork()
            if not other:
                os._exit(abs(self.run(self.root).status))
            time.sleep(self.random.uniform(0, self.plain.taken["s"] / 2))
            mine = self.run(self.root)
            statuses = {mine.status, os.waitstatus_to_exitcode(os.waitpid(other, 0)[1])}
            refused = mine.status == 0 or "another process is writing it" in mine.said
            require(refused and statuses in ({0}, {0, cli.USAGE}), f"{self.name} twice: {statuses}, {mine.said}")
            self.finish("another at the same time")
            done["refused to a second process" if len(statuses) > 1 else "done by both in turn"] += 1
        return done


def is_finished(log: Path) -> bool:
    manifest = log.with_name(f"{log.name}.run.json")
    return not manifest.exists() or '"finished": null' not in manifest.read_text()


def remount(root: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", root], check=True)
