"""Trajectories of steered chains, weight beside weight: which files belong together, and their numbers in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinksteer import store
from thinksteer.calibration import MEASURES, Change, Exit, Reliability, Strength, strength
from thinksteer.intervals import Estimate
from thinksteer.steered import Setting, Sweep
from thinksteer.sweep import steered_beside
from thinksteer.trajectories import Trajectory, read_trajectories


@dataclass(frozen=True, eq=False)
class Measured(Setting):
    """The chains of a setting of steering."""

    chains: list[Trajectory]


def read_settings(folder: Path, alike: Mapping[str, Any]) -> list[Measured]:
    """What has been probed of the control that a folder is named after and of its random controls, beside it: the
    finished files with these settings, steered as when they were generated."""
    found = []
    for beside in sorted(folder.parent.glob("*")):
        if folder.name in (beside.name, steered_beside(beside.name)):
            for file in store.finished_records(beside):
                settings = store.run_settings(file)
                if settings["steering"] and all(settings[name] == value for name, value in alike.items()):
                    found.append(Measured(**settings["steering"], chains=read_trajectories(file)))
    return found


def strengths(runs: Sequence[Measured], plain: Sequence[Trajectory] = ()) -> list[Strength]:
    """In the order of the weights; `plain`: the chains that changes are from."""
    return [strength(run.weight, run.chains, plain) for run in sorted(runs, key=lambda run: run.weight)]


def unsteered(sweep: Sweep[Measured]) -> list[Trajectory]:
    """The chains of weight 0, none if it has not been probed."""
    return next((run.chains for run in sweep.runs if not run.weight), [])


def random_runs(sweep: Sweep[Measured]) -> dict[str, list[Measured]]:
    """The runs of each random control beside a sweep, with those of weight 0, by what it is called."""
    found: dict[str, list[Measured]] = {}
    for run in (one for beside in sweep.random for one in beside):
        found.setdefault(run.control, [one for one in sweep.runs if not one.weight]).append(run)
    layer = "" if sweep.layer is None else f", layer {sweep.layer}"
    return {f"{name}{layer}": runs for name, runs in found.items()}


def shown(one: Estimate | None, scale: float = 1, digits: int = 2) -> str:
    """A number with its interval."""
    if one is None:
        return "–"
    ends = (
        "" if one.low is None or one.high is None else f" [{scale * one.low:.{digits}f}, {scale * one.high:.{digits}f}]"
    )
    return f"{scale * one.value:.{digits}f}{ends}"


def described_counts(counts: Mapping[str, int]) -> str:
    return (
        f"{counts['used']} of {counts['chains']} chains count; left out: {counts['degenerate']} degenerate, "
        f"{counts['low_mass']} to which the choices are no answer"
    )


def described(exits: Sequence[Exit], found: Reliability) -> str:
    """Accuracy along the chain and calibration as lines for a person at the terminal."""
    lines = [f"  {at.place:4.0%} done: {shown(at.accuracy, 100, 1)} % right" for at in exits]
    lines.append(f"  final confidence {shown(found.confidence, 100, 1)} %, right {shown(found.accuracy, 100, 1)} %")
    lines.append(
        f"  calibration error {shown(found.error, digits=3)} ({found.error_if_calibrated:.3f} if it were calibrated), "
        f"Brier score {shown(found.brier, digits=3)}"
    )
    return "\n".join(lines)


def described_sweep(points: Sequence[Strength], correlations: Mapping[str, Estimate] | None) -> str:
    lines = []
    for one in points:
        lines.append(f"  weight {one.weight:+g}: {described_counts(one.counts)}")
        for name in MEASURES:
            found: Change = getattr(one, name)
            lines.append(f"    {name} {shown(found.value)}, change {shown(found.change)}")
    said = (f"{name} {shown(value)}" for name, value in (correlations or {}).items())
    return "\n".join([*lines, f"  correlation of score and weight: {', '.join(said) or '–'}"])
