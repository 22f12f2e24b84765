"""Archives of artifacts: fetched whole or not at all, packed from what is finished, unpacked.

No member can land, or point, outside, and none may be of a kind that holds code.
"""

import hashlib
import re
import shutil
import sys
import zipfile
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

from thinksteer import store
from thinksteer.document import OPENING
from thinksteer.journal import SHARD
from thinksteer.manifest import FOLDERS
from thinksteer.records import InputError
from thinksteer.zips import Opened, members, whole

MANIFEST = ".run.json"
ARTIFACT = re.compile(rf"(?:{'|'.join(FOLDERS)})(?:/[^/.][^/]*)+")  # no part is hidden or empty
# What stages and checkpoints leave, beside pages: no pickles, scripts or libraries, nor drawings that may hold scripts.
KINDS = {"", ".csv", ".jinja", ".json", ".jsonl", ".md", ".model", ".ndjson", ".png", ".safetensors", ".txt"}
ABOUT_MODEL = {"README.md", "edit.json", "steering.json"}  # of a model's folder, what stage 7 and people read
WEIGHTS = "weights go in with --models"  # why a model is left out
TIMEOUT_S = 60.0
BLOCK = 1 << 20


def fetch(url: str, folder: Path) -> Path:
    """The zip at a URL (Google Drive's too), downloaded into `folder` unless it is there.

    What an interrupted download left is continued. The sha256 stands beside the file, as published at `<url>.sha256` or
    else as first seen, and is checked every time. InputError: no such zip, cut off (run again: it goes on), or another
    hash.
    """
    name = Path(urlsplit(url).path)
    path = folder / f"{name.stem}-{hashlib.sha256(url.encode()).hexdigest()[:8]}{name.suffix}"
    record = path.with_name(f"{path.name}.sha256")
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists():
        print(f"{path} is there already, from {url}")
    else:
        _download(url, path, record)
    found = store.sha256(path)
    if not record.exists():
        store.write_text(record, f"{found}  {path.name}\n")
    recorded = record.read_text(encoding="utf-8").split()[:1]
    if recorded != [found]:
        raise InputError(f"{path} has sha256 {found}, not that of {record.name}: remove both and download again")
    return path


def _download(url: str, path: Path, record: Path) -> None:
    import gdown
    import requests
    from gdown.exceptions import DownloadError

    begun = list(path.parent.glob(f"{path.name}*.part"))
    try:
        if not record.exists() and (published := _published_hash(url)):
            store.write_text(record, f"{published}  {path.name}\n")
        gdown.download(url, str(path), quiet=not sys.stderr.isatty(), resume=True, timeout=TIMEOUT_S)
    except DownloadError as error:
        if not begun or "byte range" not in str(error):
            said = " ".join(str(error).split())
            raise InputError(f"{url}: {said} Run this again, it goes on; or fetch the file in a browser.") from None
    except (requests.RequestException, OSError) as error:
        raise InputError(f"{url} cannot be had ({error}): run this again where it is within reach") from None
    if not whole(path):
        for left in (path, record, *begun):
            left.unlink(missing_ok=True)
        if not begun:
            raise InputError(f"{url} is no whole zip file: give the address of the file itself")
        _download(url, path, record)  # anew: the server continues nothing, or has another file by now


def _published_hash(url: str) -> str | None:
    import requests

    if urlsplit(url).query:  # such as Google Drive's, where nothing stands beside a file
        return None
    with requests.get(f"{url}.sha256", timeout=TIMEOUT_S, stream=True) as answer:
        start = answer.raw.read(65, decode_content=True) if answer.ok else b""
    found = re.match(rb"[0-9a-f]{64}\b", start)
    return found[0].decode() if found else None


def holds_artifacts(source: Path) -> bool:
    """Whether a folder or zip is laid out as the stages write it, not as upstream does."""
    return any(name.split("/")[0] in FOLDERS and name.endswith(MANIFEST) for name, _ in members(source))


def unpack(source: Path, root: Path) -> list[Path]:
    """Put the artifacts of a folder or zip under the root: every file, or none if anything is wrong with one.

    A file that is there already is left as it is. InputError: it has another content, or a member is damaged or no
    artifact.
    """
    names = []
    for name, opened in members(source):
        if not ARTIFACT.fullmatch(name) or not name.isprintable() or _may_hold_code(name, opened):
            raise InputError(f"{source}: member {name!r} is no artifact: do not trust this file")
        with opened() as stream:  # read to its end, for its checksum, also where nothing is to be compared
            if not _same(stream, root / name):
                raise InputError(f"{root / name} is there already, and different: move it, or give other --artifacts")
        names.append(name)
    # Manifests last: they say that what they stand beside is whole.
    for manifests in (False, True):
        for name, opened in members(source):
            path = root / name
            if name.endswith(MANIFEST) is manifests and not path.exists():
                try:
                    with opened() as stream, store.atomic(path) as new, open(new, "wb") as file:
                        shutil.copyfileobj(stream, file, BLOCK)
                except OSError as error:  # a full disk, or a file where a folder is needed
                    raise InputError(f"{path} cannot be written: {error.strerror}") from None
    return [root / name for name in names]


def _may_hold_code(name: str, opened: Opened) -> bool:
    """Of pages, all but those written here: their first lines forbid scripts and requests."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix != ".html":
        return suffix not in KINDS
    with opened() as stream:
        return stream.read(len(OPENING)) != OPENING.encode()


def _same(stream: IO[bytes], path: Path) -> bool:
    """Whether nothing is at `path`, or the same bytes. The stream is read to its end."""
    if not path.is_file():
        while stream.read(BLOCK):
            pass
        return not path.exists()
    same = True
    with open(path, "rb") as there:
        while block := stream.read(BLOCK):
            same = same and there.read(len(block)) == block
        return same and not there.read(1)


def pack(root: Path, target: Path, with_models: bool) -> tuple[int, dict[str, str]]:
    """Write what finished runs left under the root as a zip, its sha256 beside it; the same files give the same bytes.

    Gives the number of files, and what was left out with the reason. Of a model, without `with_models`, only what
    describes it is packed. InputError: `target` is there already, or nothing is finished.
    """
    if target.exists():
        raise InputError(f"{target} is there already: remove it or write elsewhere")
    files, left_out = [], {}
    for path in sorted(path for folder in FOLDERS for path in (root / folder).rglob("*") if path.is_file()):
        what, reason = _judge(path, root, with_models)
        if reason:
            left_out[what.relative_to(root).as_posix()] = reason
        if not reason or (reason == WEIGHTS and path.name in ABOUT_MODEL):
            files.append(path)
    if not files:
        raise InputError(f"{root} holds nothing that is finished: run the stages first")
    with store.atomic(target) as new, zipfile.ZipFile(new, "w") as archive:
        for path in files:
            info = zipfile.ZipInfo(path.relative_to(root).as_posix())  # dated 1980
            info.create_system, info.external_attr = 3, 0o100644 << 16
            info.compress_type = zipfile.ZIP_STORED if path.suffix in (".safetensors", ".png") else zipfile.ZIP_DEFLATED
            with open(path, "rb") as file, archive.open(info, "w", force_zip64=True) as member:
                shutil.copyfileobj(file, member, BLOCK)
    store.write_text(target.with_name(f"{target.name}.sha256"), f"{store.sha256(target)}  {target.name}\n")
    return len(files), left_out


def _judge(path: Path, root: Path, with_models: bool) -> tuple[Path, str | None]:
    """A file, or the artifact it belongs to, and why it is left out (None: it is packed)."""
    inner = path.relative_to(root).parts
    hidden = next((index for index, part in enumerate(inner) if part.startswith(".")), None)
    if hidden is not None:
        return root.joinpath(*inner[: hidden + 1]), "a temporary file"
    if _may_hold_code(path.name, partial(path.open, "rb")):
        return path, "may hold code"
    named = path.with_name(path.name.removesuffix(MANIFEST))
    output = next((one for one in (named, *path.parents[: len(inner) - 1]) if store.manifest_path(one).exists()), None)
    if output is None:  # a figure, a summary or a table beside the artifacts it was made from
        beside = [one.with_name(one.name.removesuffix(MANIFEST)) for one in path.parent.glob(f"*{MANIFEST}")]
        made = path.suffix not in (".jsonl", ".safetensors") and beside and all(map(_finished, beside))
        return path, None if made else "made by no finished run"
    if not _finished(output):
        return output, "its run has not finished"
    if inner[0] == "states":
        return output, "states may be large and are soon made again: scripts.hidden_states"
    if output.parent == root / "models" and not with_models:
        return output, WEIGHTS
    return path, None


def _finished(output: Path) -> bool:
    """Whether an artifact is whole, with all its shards."""
    if output.suffix == ".jsonl":
        return store.is_complete(output.with_name(SHARD.sub("", output.name)))
    return output.exists() and store.run_settings(output) is not None
