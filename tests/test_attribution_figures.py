import pytest
from matplotlib.image import imread

from thinksteer import attribution_figures
from thinksteer.attribution_figures import SHAPES, STYLES, Curves, effects_figure
from thinksteer.intervals import Estimate


def curves(control, num_layers=6, high=0.3, strongest=1):
    size = {"kl": 0.1}  # that of the others: 0.05
    means = {
        name: [Estimate(size.get(name, 0.05) * layer, 0.0, high, 9) for layer in range(num_layers)] for name in STYLES
    }
    return Curves(control, means, strongest)


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws and hands out the panels that are shown."""
    kept = []

    def save(figure, path):
        kept.append(figure)
        figure.savefig(path)

    monkeypatch.setattr(attribution_figures, "save", save)

    def draw(found):
        effects_figure(found, tmp_path / "figure.png")
        assert imread(tmp_path / "figure.png").std() > 0.02
        return [panel for panel in kept[-1].axes if panel.get_visible()]

    return draw


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_each_control_has_its_two_panels_one_below_the_other(drawn, count):
    panels = drawn([curves(f"control {index}") for index in range(count)])
    assert max(panels[0].figure.get_size_inches()) < 12
    assert len(panels) == 2 * count
    above = [panel for panel in panels if panel.get_title()]
    assert [panel.get_title() for panel in above] == [
        f"control {index}: strongest in layer 1" for index in range(count)
    ]
    for panel in above:
        left, bottom = panel.get_position().x0, panel.get_position().y0
        below = [p for p in panels if p not in above and abs(p.get_position().x0 - left) < 0.02]
        assert any(0 < bottom - p.get_position().y1 < 0.15 for p in below)


def test_the_curves_are_the_means_and_the_shapes_reach_one(drawn):
    above, below = drawn([curves("one")])
    for line, step in zip(above.lines, (0.05, 0.1), strict=False):  # random vectors lie beneath
        assert line.get_ydata() == pytest.approx([step * layer for layer in range(6)])
    shapes = [line for line in below.lines if len(line.get_ydata()) == 6]
    assert len(shapes) == len(SHAPES) and all(max(line.get_ydata()) == 1 for line in shapes)


def test_one_layer_without_intervals_or_any_effect_can_be_drawn(drawn):
    nothing = {name: [Estimate(0.0, None, None, 1)] for name in STYLES}
    assert len(drawn([Curves("still", nothing, 0)])) == 2
