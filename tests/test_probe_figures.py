"""The figure of effects by kind: which lines are where."""

import pytest
from matplotlib.image import imread

from thinksteer import probe_figures
from thinksteer.intervals import Estimate
from thinksteer.probe_figures import kinds_figure


def means(size):
    names = ("kl", "random", "signed_log_odds", "random_log_odds")
    return {
        name: [Estimate(size * (at + 1) * layer, 0.0, 1.0, 9) for layer in range(5)] for at, name in enumerate(names)
    }


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    kept = []

    def save(figure, path):
        kept.append(figure)
        figure.savefig(path)

    monkeypatch.setattr(probe_figures, "save", save)

    def draw(found):
        kinds_figure("control", found, tmp_path / "figure.png")
        assert imread(tmp_path / "figure.png").std() > 0.02
        return kept[-1].axes

    return draw


def test_each_place_has_a_column_and_each_kind_a_line_beside_random_vectors(drawn):
    sizes = {
        ("memory", "response"): 1,
        ("reasoning", "response"): 2,
        ("memory", "answer"): 3,
        ("reasoning", "answer"): 4,
    }
    panels = drawn({", ".join(label): means(size) for label, size in sizes.items()})
    assert [panel.get_title() for panel in panels[:2]] == ["control\nbefore the response", "control\nbefore the answer"]
    for place, panel in zip(("response", "answer"), panels[:2], strict=True):
        ends = [line.get_ydata()[-1] for line in panel.lines if len(line.get_ydata()) == 5]
        of = [sizes[kind, place] for kind in ("memory", "reasoning")]
        assert ends == [4 * factor * size for size in of for factor in (2, 1)]
    for place, panel in zip(("response", "answer"), panels[2:], strict=True):
        ends = [line.get_ydata()[-1] for line in panel.lines if len(line.get_ydata()) == 5]
        of = [sizes[kind, place] for kind in ("memory", "reasoning")]
        assert ends == [4 * factor * size for size in of for factor in (4, -4, 3)]
    assert all(len(panel.collections) == 2 for panel in panels)  # bands


def test_responses_without_answers_have_one_column(drawn):
    assert len(drawn({"memory, response": means(1), "reasoning, response": means(2)})) == 2
