"""Means of effects against means by hand, and what a person is told of them."""

import pytest
import torch

from scripts.layer_effects import describe
from thinksteer.attribution import MEASURES, Effects
from thinksteer.effect_means import by_layer, label_means, summary
from thinksteer.records import Passage, Span


def effects(kl, random):
    """One span, two layers."""
    values = [torch.tensor([row]) for row in (kl, random, [-1.0, 1.0], kl, kl, kl, random)]
    return Effects(*values)


PASSAGES = [Passage(f"q{index}", (1, 2, 3), (Span("a", 1, 2),)) for index in range(3)]


def test_the_strongest_layer_is_not_that_where_any_vector_would_do():
    about = summary(PASSAGES, [effects([1.0, 5.0], [0.1, 4.9])] * 3) | {"spans": {"a": 3}}
    assert about["strongest"] == 0 and about["argmax"]["kl"] == 1
    assert "strongest: layer 0\n" in describe(about)
    weak = [effects([one, 0.0], [0.5, 0.5]) for one in (0.0, 0.4, 1.2)]
    weaker = [effects([0.1, 0.0], [0.5 + one, 0.5]) for one in (0.0, 0.1, 0.2)]
    for found in (weak, weaker):
        assert "no more than random" in describe(summary(PASSAGES, found) | {"spans": {"a": 3}})
    assert "no more" not in describe(
        summary(PASSAGES[:1], weak[:1]) | {"spans": {"a": 1}}
    )  # one response tells nothing


def test_gradients_are_averaged_by_size_and_with_their_sign():
    one = Effects(*[torch.ones(2, 1)] * 2, torch.tensor([[-3.0], [1.0]]), *[torch.ones(2, 1)] * 4)
    found = by_layer(one)
    assert found["gradient"] == [2] and found["signed_gradient"] == [-1]


def test_each_label_has_the_means_of_its_own_spans_over_the_responses_that_have_any():
    passages = [
        Passage(f"q{i}", (1, 2, 3, 4), tuple(Span(label, 1, 2) for label in labels))
        for i, labels in enumerate(("aba", "b", "a"))
    ]
    values = [torch.tensor(rows) for rows in ([[1.0, 9], [5, 5], [3, 9]], [[7.0, 7]], [[-4.0, 2]])]
    found = [Effects(**dict.fromkeys(MEASURES, rows) | {"random": 0 * rows}) for rows in values]
    means = label_means(passages, found)
    assert list(means) == ["a", "b"]
    first, second = means["a"]
    assert first["layer"] == 0 and first["kl"]["value"] == pytest.approx((2 - 4) / 2) and first["kl"]["n"] == 2
    assert first["log_odds"]["value"] == pytest.approx((2 + 4) / 2) and first["signed_log_odds"]["value"] == -1
    assert second["excess"]["value"] == pytest.approx((9 + 2) / 2)
    assert means["b"][0]["kl"]["value"] == pytest.approx(6)
