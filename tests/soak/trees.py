"""What two folders of artifacts have in common, when one of them was made by runs that were killed."""

import json
import re
from collections import Counter
from hashlib import sha256
from pathlib import Path

DIGEST = re.compile(rb"[0-9a-f]{64}")
PARTIAL = re.compile(r"\..*\.partial(\.\w+)?")
OF_THE_RUN = ("command", "started", "host", "git_revision")  # in a manifest, besides "finished"

Tree = dict[str, bytes]
"""Path below the root -> what must be the same of the file."""


def tree(root: Path) -> Tree:
    """Every file, hidden ones too. The lines of logs in any order, as they are written when a response is ready; for
    digests of files in the tree their paths, since what reads a log keeps its digest; manifests without times."""
    files = {file.relative_to(root).as_posix(): file.read_bytes() for file in sorted(root.rglob("*")) if file.is_file()}
    paths = {sha256(data).hexdigest().encode(): f"<{name}>".encode() for name, data in files.items()}
    plain = {name: DIGEST.sub(lambda found: paths.get(found[0], found[0]), data) for name, data in files.items()}
    return {name: _comparable(name, data) for name, data in plain.items()}


def _comparable(name: str, data: bytes) -> bytes:
    if name.endswith(".jsonl"):
        return b"".join(sorted(data.splitlines(keepends=True), key=lambda line: (line[-1:] != b"\n", line)))
    if name.endswith(".run.json"):
        facts = {key: value for key, value in json.loads(data).items() if key not in OF_THE_RUN}
        return json.dumps(facts | {"finished": facts["finished"] is not None}, sort_keys=True).encode()
    return data


def differences(found: Tree, wanted: Tree) -> list[str]:
    """What was lost, doubled, changed or left over."""
    told = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    told += [f"{name} was left over" for name in sorted(found.keys() - wanted.keys())]
    for name in sorted(found.keys() & wanted.keys()):
        if name.endswith(".jsonl"):
            mine, theirs = Counter(found[name].splitlines()), Counter(wanted[name].splitlines())
            lost, more = (theirs - mine).total(), (mine - theirs).total()
            told += [f"{name}: {lost} lines lost, {more} doubled or other"] * bool(lost or more)
        elif found[name] != wanted[name]:
            told.append(f"{name} is another")
    return told


def faults(found: Tree, before: Tree, wanted: Tree) -> list[str]:
    """What may not be there when a run was killed: half of a file, a line that is none of those to come, or one twice,
    a manifest that calls finished what is not."""
    told = []
    for name, data in found.items():
        if Path(name).name.startswith(".") or any(part.startswith(".") for part in Path(name).parts):
            continue
        if name.endswith(".jsonl"):
            odd = Counter(line for line in data.splitlines(keepends=True) if line.endswith(b"\n"))
            odd -= Counter(wanted[name].splitlines(keepends=True))
            told += [f"{name}: {odd.total()} lines doubled or other"] * bool(odd)
        elif name.endswith(".run.json"):
            output = name.removesuffix(".run.json")
            made = {one for one in wanted if one == output or one.startswith(f"{output}/")}
            whole = all(found.get(one) in (wanted[one], before.get(one, b"")) for one in made)
            wrong = b'"finished": true' in data and made & found.keys() and not whole  # alone it stands for nothing
            told += [f"{name} calls finished what is not"] * bool(wrong)
        elif data not in (before.get(name), wanted.get(name)):
            told.append(f"{name} is neither the old one nor the new one")
    return told


def shown(found: Tree, before: Tree, wanted: Tree) -> str:
    """How far a step had come: lines of its logs, other files of its own, files that are half-written."""

    def lines(one: Tree) -> int:
        return sum(data.count(b"\n") for name, data in one.items() if name.endswith(".jsonl") and name in wanted)

    new = [name for name in wanted if name not in before and not name.endswith((".jsonl", ".run.json"))]
    half = sum(bool(PARTIAL.search(name)) for name in found)
    there = sum(name in found for name in new)
    logged, to_log = (lines(one) - lines(before) for one in (found, wanted))
    told = [f"{logged} of {to_log} lines"] * bool(to_log)
    told += [f"{there} of {len(new)} files"] * bool(new) + [f"{half} half-written"] * bool(half)
    return ", ".join(told)


def size(root: Path) -> int:
    """Bytes that the files below it take on a disk of pages of 4096."""
    return sum(-(-file.stat().st_size // 4096) * 4096 for file in root.rglob("*") if file.is_file())
