"""Run manifests: beside every artifact, `<its name>.run.json` says what made it, from what, and whether it is whole."""

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from thinksteer.files import alone, lock_path, read_json, sha256, write_json
from thinksteer.journal import record_files
from thinksteer.lines import cut
from thinksteer.records import InputError
from thinksteer.terminal import discreet

FOLDERS = ("responses", "directions", "steering", "heads", "models", "evaluations", "reports")
FOLDERS += ("annotations", "states", "layers", "levels", "behaviours", "questions", "lm_eval", "confidence")
MIRRORS = ("annotations", "confidence")  # of the layout below them
PACKAGES = ("torch", "transformers", "numpy", "safetensors", "tokenizers", "vllm")
SOURCE = Path(__file__).resolve().parent.parent


@dataclass
class Run:
    """The run of a stage that makes `output`.

    `finished`: an earlier run with the same settings and inputs completed, so there is nothing to do. `device` and
    `dtype` are what the manifest says of the model that ran (see `runs_on`); without one, the device is the GPU that
    this process used, or "cpu".
    """

    output: Path
    finished: bool
    device: str | None = None
    dtype: str | None = None

    def runs_on(self, device: str, dtype: str) -> None:
        """Says where and in which dtype the model runs, before it makes the first part of the output.

        InputError: an interrupted run has made a part in another dtype, as `--dtype auto` differs between machines.
        """
        if self.dtype not in (None, dtype):
            raise InputError(
                f"{self.output} was begun in {self.dtype}, on this machine the model runs in {dtype}: finish it on a "
                "machine like the first, or use --overwrite"
            )
        self.device, self.dtype = device, dtype
        path = manifest_path(self.output)
        write_json(path, read_json(path) | {"device": device, "dtype": dtype})


@contextmanager
def run(output: Path, settings: Mapping[str, Any], inputs: Sequence[Path], overwrite: bool) -> Iterator[Run]:
    """Guard the making of `output`, a file or a folder, from `settings` (JSON values and paths) and input files.

    A `.jsonl` input stands for all its shards. On entry the manifest is compared and, unless the run is finished,
    written; on a clean exit it gets its `finished` time. What an interrupted run with the same settings and inputs
    left is kept if it is a file (a `RecordLog` goes on with it), removed if it is a folder (whole or made again).

    InputError: an input is missing, cut or itself unfinished; the output is there but was made from other settings or
    inputs (each difference is listed), or has no manifest; another process is making it. `overwrite` makes it anew. A
    run that fails before anything is made leaves no trace: no manifest, and what it was to overwrite is back in its
    place.
    """
    settings = json.loads(json.dumps(settings, default=os.fspath, allow_nan=False))
    hashes = _hash_inputs(inputs, _root(output))
    with ExitStack() as stack:
        if overwrite or not _finished(output) or _left(output) or lock_path(output).exists():  # else nothing is written
            stack.enter_context(alone(output))
        if _finished(output):
            _clear(output)
        if overwrite:
            _set_aside(output)
        elif _failed_at_once(output):
            output.unlink()
        facts = _facts(settings, hashes)
        if output.exists():  # else a manifest alone protects nothing
            earlier = manifest_of(output)
            _require_same(output, earlier, facts)
            if earlier["finished"] is not None:
                yield Run(output, finished=True)
                return
            facts["started"] = earlier["started"]
            if output.is_dir():
                shutil.rmtree(output)
            else:
                facts["dtype"] = earlier.get("dtype")
        state = Run(output, finished=False, dtype=facts["dtype"])
        try:
            write_json(manifest_path(output), facts)
            yield state
        except BaseException:
            if not output.exists():
                manifest_path(output).unlink(missing_ok=True)
                _bring_back(output)
            raise
        made = {"finished": _now(), "device": state.device or _device(), "dtype": state.dtype}
        write_json(manifest_path(output), facts | made)
        _clear(output)


def manifest_path(output: Path) -> Path:
    return output.with_name(f"{output.name}.run.json")


def manifest_of(output: Path) -> dict[str, Any] | None:
    """What the manifest of an output says, None if it has none. InputError if the manifest is broken."""
    path = manifest_path(output)
    return read_json(path, "settings", "inputs", "finished") if path.exists() else None


def _facts(settings: dict[str, Any], hashes: dict[str, str]) -> dict[str, Any]:
    """All that a manifest holds; nothing is taken from the environment, so no secret can be, nor from URLs."""
    return {
        "command": [discreet(argument) for argument in sys.argv],
        "settings": settings,
        "seed": settings.get("seed"),
        "versions": {"python": platform.python_version()} | _versions(),
        "git_revision": _git_revision(),
        "inputs": hashes,
        "started": _now(),
        "finished": None,
        "host": socket.gethostname(),
        "device": None,
        "dtype": None,
    }


def _require_same(output: Path, earlier: dict[str, Any] | None, facts: dict[str, Any]) -> None:
    if earlier is None:
        raise InputError(f"{output} has no {manifest_path(output).name}, so what made it is unknown: move it away")
    changes = _changes("", earlier["settings"], facts["settings"])
    # A file that moved is the same input.
    if sorted(earlier["inputs"].values()) != sorted(facts["inputs"].values()):
        changes += _changes("input ", earlier["inputs"], facts["inputs"])
    if changes:
        listed = "\n  ".join(changes)
        raise InputError(f"{output} was made otherwise (old -> new):\n  {listed}\nUse --overwrite to make it anew.")


def _changes(prefix: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    def show(values: Mapping[str, Any], name: str) -> str:
        return json.dumps(values[name], ensure_ascii=False) if name in values else "absent"

    names = [*old, *(name for name in new if name not in old)]
    pairs = [(name, show(old, name), show(new, name)) for name in names]
    return [f"{prefix}{name}: {before} -> {after}" for name, before, after in pairs if before != after]


def _finished(output: Path) -> bool:
    with suppress(InputError):  # a broken manifest
        return output.exists() and (manifest_of(output) or {}).get("finished") is not None
    return False


def _failed_at_once(output: Path) -> bool:
    """Whether a run was killed before it wrote anything into the file that it made: there is nothing to be guarded."""
    earlier = manifest_of(output) if output.is_file() and not output.stat().st_size else None
    return earlier is not None and earlier["finished"] is None


def _aside(path: Path) -> Path:
    """Where a file or folder waits until the run that overwrites it has finished."""
    return path.with_name(f".{path.name}.before")


def _left(output: Path) -> list[Path]:
    """What of an earlier output waits there."""
    return [_aside(path) for path in (output, manifest_path(output)) if _aside(path).exists()]


def _set_aside(output: Path) -> None:
    """Each step leaves what a kill right behind it may find: the output at its place or aside, a manifest with it."""
    manifest = manifest_path(output)
    if output.is_dir() and not manifest.exists():
        raise InputError(f"{output} has no {manifest.name}, so it may not be ours to remove: move it away")
    if _aside(output).exists() and not _finished(output):
        _delete(output)  # half of what a killed run was to put in its place: the older one is kept
    elif output.exists():
        if manifest.exists():
            shutil.copyfile(manifest, _aside(manifest))
        output.replace(_aside(output))


def _bring_back(output: Path) -> None:
    manifest = manifest_path(output)
    if _aside(output).exists():
        if _aside(manifest).exists():
            shutil.copyfile(_aside(manifest), manifest)
        _aside(output).replace(output)
        _clear(output)


def _clear(output: Path) -> None:
    for path in _left(output):
        _delete(path)


def _delete(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _hash_inputs(inputs: Sequence[Path], root: Path) -> dict[str, str]:
    files = [part for path in inputs for part in (record_files(path) if path.suffix == ".jsonl" else [path])]
    places = []
    for path in files:
        if not path.is_file():
            raise InputError(f"{path} is missing: run the stage that writes it")
        made = manifest_of(path)
        if made and made["finished"] is None:
            raise InputError(f"{path} is not finished: run again the command in {manifest_path(path).name}, it goes on")
        if made and path.suffix == ".jsonl" and cut(path):
            raise InputError(f"{path} ends within a line, so it was cut: restore it, or make it again with --overwrite")
        place = path.resolve()
        inside = place.is_relative_to(root)
        places.append(str(place.relative_to(root) if inside else place))
    with ThreadPoolExecutor() as pool:
        return dict(zip(places, pool.map(sha256, files), strict=True))


def _root(output: Path) -> Path:
    """The artifacts root above an output: the parent of the nearest folder of the artifact layout, but of the outer
    one in those that mirror the layout below them."""
    place = output.resolve()
    found = [above for above in (place, *place.parents) if above.name in FOLDERS]
    mirror = next((above for above in found if above.name in MIRRORS), None)
    return (mirror or (found[0] if found else place)).parent


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git_revision() -> str | None:
    """The commit of this source tree, with `-dirty` if it was changed; None outside git."""
    if not (SOURCE / ".git").exists():
        return None
    command = ["git", "-C", str(SOURCE), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):  # no git, or a tree that git does not trust
        return None
    return answer.stdout.strip()


def _device() -> str:
    # Only asked if this process used CUDA: asking would start it, and engines that fork would fail.
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch and torch.cuda.is_initialized() else "cpu"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
