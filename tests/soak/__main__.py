"""Kill anything, lose nothing: every stage is disturbed again and again, and must end as if nobody had.

    python -m tests.soak --kills 50 --seed 0
    python -m tests.soak --kills 0 --full_disks 20 --steps steering edit

Runs the stages, and the scripts that write long logs, on the embedded model, undisturbed in one folder, and in another
disturbed by

- SIGKILL, SIGTERM and SIGINT at moments chosen by the clock, by the lines that logs have grown by, and by operations on
  files: before the n-th (so each state that a crash could leave comes up, be it there for a microsecond) or some
  milliseconds after it, inside a write. What a machine that dies leaves is made too, by tearing off the end of a log;
  and clocks that go wrong, by times of files and in manifests that are long past or still to come;
- disks that are full after so many bytes, or read-only (where this process may mount some);
- the same command given twice at a time.

What is there after each of them is looked through, the same command goes on, and both folders must be the same.
"""

import argparse
import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai  # noqa: F401 (imported by a script when it needs it)
from tqdm import tqdm

from tests.soak.step import Broken, Step
from tests.test_judge import Server, completion
from thinksteer import models

ASKING = r"Yeah, I think that's right.\n\n**Final Answer**\n\boxed{"
FEW = ["--n_questions", "32", "--max_length", "300"]
STEPS = {  # name -> module and flags; each reads what those before it have left
    "responses": ["generate_responses", *FEW],
    "directions": ["extract_directions", "--min_examples", "3"],
    "steering": ["steer_eval", *FEW, "--direction_weight", "-0.4", "0.2"],
    "heads": ["find_short_heads", "--min_examples", "3"],
    "edit": ["edit_weights"],
    "evaluation": ["evaluate_models", *FEW, "--n_samples", "2"],
    "keywords": ["scripts.annotate"],
    "judge": ["scripts.annotate", "--annotator", "judge", "--endpoint", "URL", "--endpoint_model", "judge"],
    "confidence": ["scripts.track_confidence", "--choices", "10-59", "--every", "16", "--suffix", ASKING],
    "report": ["analyze_results"],
}


def import_all() -> None:
    """Import what the steps import, also when they load a model, so that no run has to; leave no thread behind."""
    for module, *_ in STEPS.values():
        importlib.import_module(module)
    tqdm.monitor_interval = 0
    ref = models.resolve("tiny-reasoner", Path())
    models.load_tokenizer(ref)
    models.load_model(ref, "cpu", "auto", trust_remote_code=False)


@contextmanager
def judge() -> Iterator[str]:
    """The URL of a judge, in a process of its own, that takes all thinking for deduction."""

    def reply(prompt: str, number: int) -> tuple[int, dict[str, str], dict[str, Any]]:
        thinking = prompt.partition("Thinking process:\n")[2]
        return 200, {}, completion(prompt, text=f'["deduction"]{thinking}["end-section"]')

    server = Server(reply)
    pid = os.fork()
    if not pid:
        server.serve_forever()
    server.server_close()
    try:
        yield server.url
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@contextmanager
def disk(folder: Path) -> Iterator[bool]:
    """Mount a disk of its own on a folder, in memory, if that is permitted; what is on it stays there."""
    command = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(folder)]
    mounted = not subprocess.run(command, capture_output=True).returncode
    try:
        yield mounted
    finally:
        if mounted:
            kept = shutil.copytree(folder, folder.with_name("kept"))
            subprocess.run(["umount", folder], check=True)
            shutil.copytree(kept, folder, dirs_exist_ok=True)
            shutil.rmtree(kept)


def part(number: int, names: Sequence[str], name: str) -> int:
    """How many of a number fall to one of the names."""
    return (number + names.index(name)) // len(names) if name in names else 0


def soak(folder: Path, names: Sequence[str], wanted: dict[str, int], seed: int) -> Counter[str]:
    """Do the steps, and disturb those named so often in all. Broken says what went wrong."""
    whole, disturbed = folder / "undisturbed", folder / "disturbed"
    for one in (whole, disturbed):
        one.mkdir()
    done: Counter[str] = Counter()
    rng = random.Random(seed)
    with judge() as url, disk(disturbed) as mounted:
        for name in list(STEPS)[: 1 + max(list(STEPS).index(name) for name in names)]:
            step = Step(name, [url if word == "URL" else word for word in STEPS[name]], whole, disturbed, rng)
            share = {what: part(number, names, name) for what, number in wanted.items()}
            if not mounted:
                share["full_disks"] = 0
            for what, number in share.items():
                done += getattr(step, what)(number)
            if not any(share.values()):
                step.finish("nothing")
    if not mounted:
        done["disks left out, as none may be mounted"] = wanted["full_disks"]
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="of all steps together (default: %(default)s)")
    parser.add_argument("--full_disks", type=int, default=0, help="likewise (default: %(default)s)")
    parser.add_argument("--twice", type=int, default=0, help="likewise (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), help="to disturb (default: all)")
    args = parser.parse_args()
    started = time.monotonic()
    import_all()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    wanted = {"kills": args.kills, "twice": args.twice, "full_disks": args.full_disks}
    try:
        done = soak(folder, args.steps, wanted, args.seed)
    except Broken as error:
        sys.exit(f"seed {args.seed}: {error}; see {folder}")
    shutil.rmtree(folder)
    told = ", ".join(f"{count} {name}" for name, count in done.items() if count)
    print(f"0 lost, 0 doubled, all the same after {told}; {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
