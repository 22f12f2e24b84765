"""The figure of effects by kind: what is drawn where, with few controls and many."""

import pytest
from matplotlib.image import imread
from test_level_effects import LEVELS, run_of

from thinksteer import level_figures
from thinksteer.level_figures import levels_figure


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draws and hands out the panels that are shown."""
    kept = []

    def save(figure, path):
        kept.append(figure)
        figure.savefig(path)

    monkeypatch.setattr(level_figures, "save", save)

    def draw(runs, levels):
        levels_figure(runs, levels, tmp_path / "figure.png")
        assert imread(tmp_path / "figure.png").std() > 0.02
        return [panel for panel in kept[-1].axes if panel.get_visible()]

    return draw


def sweep_of(control):
    runs = [run_of(20, 30, control), run_of(36, 28, control, 2.0), run_of(10, 30, control, -1.0)]
    return [*runs, run_of(19, 31, f"{control}.random0", 2.0), run_of(18, 30, f"{control}.random1", -1.0)]


def lines(panel):
    """The drawn lines with more than the two points of an axis."""
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in panel.lines if line.get_color() != "#888888"]


def test_each_kind_is_a_line_over_its_random_controls_and_the_difference_stands_below(drawn):
    above, below = drawn(sweep_of("c"), LEVELS)
    own = ([-1.0, 0.0, 2.0], [25.0, 50.0, 90.0]), ([-1.0, 0.0, 2.0], [75.0, 75.0, 70.0])
    random = [([0.0, 2.0], [50.0, 47.5]), ([-1.0, 0.0], [45.0, 50.0]), ([0.0, 2.0], [75.0, 77.5])]
    found = [line for line in lines(above) if line[0]]
    assert sorted(found) == sorted([*own, *random, ([-1.0, 0.0], [75.0, 75.0])])
    assert found[2] == own[0]  # over its random ones
    colours = [line.get_color() for line in above.lines]
    assert colours[0] == colours[1] == f"{colours[2]}60" and len(above.collections) == 2  # bands of the kinds alone
    assert lines(below)[-1] == ([-1.0, 0.0, 2.0], pytest.approx([-25.0, 0.0, 45.0]))
    assert sorted(lines(below)[:2]) == [([-1.0, 0.0], pytest.approx([-5.0, 0.0])), ([0.0, 2.0], pytest.approx([0, -5]))]
    assert below.get_ylabel() == "change: reasoning\nminus memory (points)" and len(below.collections) == 1


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_each_control_has_its_panels_one_below_the_other(drawn, count):
    panels = drawn([run for index in range(count) for run in sweep_of(f"control {index}")], LEVELS)
    assert len(panels) == 2 * count and panels[0].figure.get_size_inches()[0] < 12
    titled = [panel for panel in panels if panel.get_title()]
    assert [panel.get_title() for panel in titled] == [f"control {index}" for index in range(count)]
    for panel in titled:
        left, bottom = panel.get_position().x0, panel.get_position().y0
        below = [p for p in panels if p.get_xlabel() and abs(p.get_position().x0 - left) < 0.02]
        assert any(0 < bottom - p.get_position().y1 < 0.1 for p in below)


def test_a_long_name_is_broken_at_its_dots(drawn):
    above, _ = drawn(sweep_of("reasoning_memory.amplify.block_in+attn_out+mlp_out.response.from-12.unit"), LEVELS)
    lines = above.get_title().split("\n")
    assert lines == ["reasoning_memory.amplify.", "block_in+attn_out+mlp_out.response.", "from-12.unit"]


def test_one_kind_or_three_have_no_difference_and_a_kind_that_is_nowhere_no_points(drawn):
    [panel] = drawn(sweep_of("c"), [*LEVELS, "none of it"])
    assert panel.get_xlabel() and [line for line in lines(panel) if line == ([], [])]
    assert len(drawn(sweep_of("c"), LEVELS[:1])) == 1
