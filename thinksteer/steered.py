"""Settings of steering side by side: which make a sweep, and which random controls belong to which."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from thinksteer.sweep import steered_beside


@dataclass(frozen=True, eq=False)
class Setting:
    """A control times a weight, in one layer (None: in all that the control steers, or not steered)."""

    control: str
    layer: int | None
    weight: float

    @property
    def of(self) -> str:
        """The control itself; of a random one, the control that it stands beside."""
        return steered_beside(self.control) or self.control

    @property
    def random(self) -> bool:
        return self.of != self.control

    @property
    def place(self) -> str:
        """Where the direction was added."""
        if not self.weight:
            return "–"
        return "all its layers" if self.layer is None else f"layer {self.layer}"


One = TypeVar("One", bound=Setting)


@dataclass(frozen=True, eq=False)
class Sweep(Generic[One]):
    """The settings of a control that differ in the weight alone, in its order, weight 0 too; `random`: the random
    controls of each, none of weight 0, which is the same for all."""

    control: str
    layer: int | None
    runs: tuple[One, ...]
    random: tuple[tuple[One, ...], ...]

    @property
    def title(self) -> str:
        return self.control if self.layer is None else f"{self.control}, layer {self.layer}"

    def ends(self, negative: float | None, positive: float | None) -> tuple[float, float]:
        """The two weights to show: those given, else the least and the largest."""
        weights = [run.weight for run in self.runs]
        return min(weights) if negative is None else negative, max(weights) if positive is None else positive


def beside_random(setting: One, settings: Sequence[One]) -> list[One]:
    """The random controls of a control's setting, at the same weight and layer."""
    same = [other for other in settings if other.random and other.of == setting.control]
    return [other for other in same if (other.layer, other.weight) == (setting.layer, setting.weight)]


def sweeps(settings: Sequence[One]) -> list[Sweep[One]]:
    """The sweeps of every control that is not a random one."""
    found = []
    own = [one for one in settings if not one.random]
    for control, layer in dict.fromkeys((one.control, one.layer) for one in own if one.weight):
        of_control = [one for one in own if one.control == control and (one.layer == layer or not one.weight)]
        ordered = tuple(sorted(of_control, key=lambda one: one.weight))
        random = tuple(tuple(beside_random(one, settings) if one.weight else ()) for one in ordered)
        found.append(Sweep(control, layer, ordered, random))
    return found
