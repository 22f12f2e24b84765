"""The finished settings of steering on the disk."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from thinksteer import store
from thinksteer.records import InputError
from thinksteer.steered import Setting
from thinksteer.sweep import steered_beside


@dataclass(frozen=True, eq=False)
class SteeredFile(Setting):
    """A finished file of steered responses."""

    records: Path


def find_settings(
    root: Path, model: str, dataset: str, controls: Sequence[str] | None, labels: Collection[str] | None = None
) -> list[SteeredFile]:
    """The finished settings of these controls (None: of all that have any) and their random controls.

    With `labels` only controls count whose name, up to its first dot, is one of them. InputError: a control has none,
    or not weight 0, or its files differ in their token budget, with which what is compared varies.
    """
    above = root / "steering" / store.slug(model) / store.slug(dataset)
    folders = [folder.name for folder in sorted(above.glob("*")) if store.finished_records(folder)]
    steered = [name for name in folders if steered_beside(name) is None]
    known = [name for name in steered if labels is None or name.partition(".")[0] in labels]
    chosen = known if controls is None else controls
    if not chosen or set(chosen) - set(known):
        missing = " ".join(one for one in chosen if one not in known)
        what = f" by {missing}" if missing else ""
        what += "" if labels is None else f", of controls named after {', '.join(labels)}"
        what += f"; there is {', '.join(steered)}" if steered else ""
        raise InputError(f"{above} has no finished steering{what}: run steer_eval.py")
    found = []
    for control in chosen:
        names = [control, *(name for name in folders if steered_beside(name) == control)]
        own = [
            setting
            for name in names
            for setting in sorted((_setting(name, path) for path in store.finished_records(above / name)), key=_order)
        ]
        if not any(one.control == control and not one.weight for one in own):
            raise InputError(f"{above / control} has no finished weight 0 to compare with: steer with that, too")
        if len(budgets := {store.run_settings(one.records).get("max_length") for one in own}) > 1:
            listed = " and ".join(str(budget) for budget in sorted(budgets, key=str))
            raise InputError(f"{above / control}: its files have at most {listed} tokens a response: keep those of one")
        found += own
    return found


def _setting(control: str, path: Path) -> SteeredFile:
    """What `store.steering_path` says by a file's name."""
    match = re.fullmatch(r"(.+?)(?:\.layer(\d+))?", path.stem)
    try:
        return SteeredFile(control, int(match[2]) if match[2] else None, float(match[1]), path)
    except ValueError:
        raise InputError(f"{path} is not named after a weight: move it away") from None


def _order(setting: Setting) -> tuple[int, float]:
    """By layer, then weight; all layers, and no steering, first."""
    return -1 if setting.layer is None else setting.layer, setting.weight
