"""The Hugging Face hub, or its cache on this machine when the hub is out of reach."""

import contextlib
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

from thinksteer.records import InputError
from thinksteer.rows import Row

TIMEOUT_S = 5.0


class OutOfReach(InputError):
    """Data are neither on the hub, as far as it can be reached, nor in its cache."""


def read(name: str, configs: tuple[str, ...], split: str) -> list[Row]:
    """All rows of a data set's split, the configs one after the other and counted through.

    OutOfReach if it is neither within reach nor in the cache.
    """
    import datasets

    table: list[Row] = []
    with _offline_unless_reachable():
        for config in configs:
            try:
                values = datasets.load_dataset(name, config, split=split)
            except (OSError, ValueError) as error:  # out of reach, not cached, or cached without this config
                raise _missing(name, error) from error
            table += [
                Row(number, f"{name} {config} {split} row {number}", dict(row))
                for number, row in enumerate(values, start=len(table))
            ]
    return table


def file(name: str, path: str) -> Path:
    """A file of a data set's repository as it is, where `datasets` would have to run a script to load the set.
    OutOfReach as for `read`."""
    with _offline_unless_reachable():
        try:
            return Path(hf_hub_download(name, path, repo_type="dataset"))
        except (OSError, ValueError) as error:  # out of reach, not cached, or no such file
            raise _missing(f"{path} of {name}", error) from error


def _missing(what: str, error: Exception) -> OutOfReach:
    return OutOfReach(f"cannot load {what}, neither from the hub nor from the cache ({error})")


@contextlib.contextmanager
def _offline_unless_reachable() -> Iterator[None]:
    """Without the hub `datasets` retries for half a minute before it looks into its cache; offline it looks at once."""
    import datasets
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or reachable():
        yield
        return
    before = datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = False, before


def reachable() -> bool:
    """Whether the hub answers within seconds, through the proxy if one is set, and is not switched off."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # its certificates are for the hub's client to judge
    except (TimeoutError, ConnectionError):
        return False
    return True


def own_file(location: str, name: str) -> Path | None:
    """A file of a model, downloaded if need be; None if the model has no such file."""
    if Path(location).is_dir():
        return Path(location, name) if Path(location, name).is_file() else None
    try:
        return Path(hf_hub_download(location, name))
    except (EntryNotFoundError, LocalEntryNotFoundError):
        return None


def is_here(location: str) -> bool:
    return Path(location).is_dir() or isinstance(try_to_load_from_cache(location, "config.json"), str)


def check_available(location: str) -> None:
    """Fail at once, in words, where a model is neither here nor to be had: the libraries would try again for long."""
    if is_here(location):
        return
    download = f"download it where there is a network (hf download {location}) or give --model a local folder"
    if not reachable():
        raise InputError(f"{location} is not in the local cache and the hub cannot be reached: {download}")
    try:
        hf_hub_download(location, "config.json")
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise InputError(f"{location} cannot be had from the hub ({error}): {download}") from error
