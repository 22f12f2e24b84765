"""The figures can be drawn of what there may be, and show what they are to show."""

from matplotlib.image import imread
from test_calibration import CHAINS, chain, stated, swept

from thinksteer.calibration import exits, reliability, strength
from thinksteer.confidence_figures import exits_figure, reliability_figure, strength_figure, trajectories_figure
from thinksteer.drawing import COLOURS


def shows(path, colour):
    """Whether a picture has pixels of a colour."""
    wanted = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return bool((abs(imread(path)[:, :, :3] - wanted).max(axis=2) < 0.01).any())


def test_every_name_has_its_line(tmp_path):
    path = tmp_path / "one.png"
    named = {"weight -1": CHAINS, "weight +1": [chain("x", [True, True], thinking_end=10)]}
    trajectories_figure(named, "the right answer", path)
    assert shows(path, COLOURS[0]) and shows(path, COLOURS[1])
    exits_figure({name: exits(chains) for name, chains in named.items()}, path)
    assert shows(path, COLOURS[0]) and shows(path, COLOURS[1])


def test_a_single_place_can_be_drawn(tmp_path):
    trajectories_figure({"one": [chain("x", [True])]}, "the answer", tmp_path / "one.png")
    exits_figure({"one": exits([chain("x", [True])])}, tmp_path / "two.png")
    reliability_figure(reliability([chain("x", [True])]), tmp_path / "three.png")


def test_random_controls_are_grey(tmp_path):
    points = [strength(weight, chains, ()) for weight, chains in swept(1).items()]
    strength_figure({"c": points, "c.random0": points[:2]}, ["c.random0"], tmp_path / "one.png")
    assert shows(tmp_path / "one.png", COLOURS[0]) and shows(tmp_path / "one.png", "#8a8a8a")
    assert not shows(tmp_path / "one.png", COLOURS[1])
    reliability_figure(reliability(stated(0.1, 300)), tmp_path / "two.png")
    assert shows(tmp_path / "two.png", COLOURS[0])
