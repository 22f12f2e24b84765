"""Probes against planted truths: what is separable, what is noise, and what only gives the question away."""

import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_classes import run

from scripts.separate_classes import chosen_layers, parse_args
from thinksteer import store
from thinksteer.class_figures import View, separability_figure, states_figure
from thinksteer.records import InputError, Passage, Span
from thinksteer.separability import (
    choose,
    direction,
    leads_to,
    principal,
    probe_direction,
    separations,
    shuffled,
    tsne,
)

LABELS = ("a", "b", "c")
TERMS = {("a",): 1, ("b", "c"): -1}
N, WIDTH = 300, 12


def planted(seed=0, per_question=3, uneven=False):
    """Labels at random, questions of `per_question` examples, and noise `[N, 1, D]` in which neither can be seen."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(LABELS, size=N, p=(0.7, 0.2, 0.1) if uneven else None)
    questions = np.array([f"q{index // per_question}" for index in range(N)])
    return torch.tensor(rng.normal(size=(N, 1, WIDTH))), labels, questions


def holds(estimate, value):
    return estimate.low <= value <= estimate.high


def test_clusters_that_lie_apart_are_told_apart_without_an_error():
    states, labels, questions = planted(uneven=True)
    states[:, 0, :3] += 30 * torch.tensor([[label == one for one in LABELS] for label in labels])
    (found,) = separations(states, labels, questions, TERMS, seed=0)
    names = ("accuracy", "balanced", "sides", "direction", "sides_auc", "direction_auc")
    assert {getattr(found, name).value for name in names} == {1} and found.silhouette > 0.2
    assert found.balanced.low < 1 and holds(found.shuffled, 1 / 3)


def test_noise_is_told_apart_by_chance_only_however_uneven_the_labels():
    found = []
    for world in range(10):
        states, labels, questions = planted(world, uneven=True)
        found += separations(states, labels, questions, TERMS, seed=0)
    chances = {"balanced": 1 / 3, "shuffled": 1 / 3} | dict.fromkeys(("sides", "direction"), 1 / 2)
    chances |= dict.fromkeys(("sides_auc", "direction_auc"), 1 / 2)
    for name, chance in chances.items():
        estimates = [getattr(one, name) for one in found]
        assert np.mean([one.value for one in estimates]) == pytest.approx(chance, abs=0.03)
        assert sum(holds(one, chance) for one in estimates) >= 7  # of intervals that hold it in 95 of 100 worlds
    assert all(abs(one.silhouette) < 0.05 for one in found)


def test_knowing_the_question_does_not_help_as_no_question_is_on_both_sides():
    """Each question has one label and one place: a probe that knows the place knows the label."""
    rng, question = np.random.default_rng(1), np.repeat(np.arange(50), 6)
    states = rng.normal(size=(50, 80))[question] + 0.01 * rng.normal(size=(300, 80))
    states, labels = torch.tensor(states[:, None]), rng.choice(LABELS, size=50)[question]
    (found,) = separations(states, labels, question.astype(str), TERMS, seed=0)
    assert found.balanced.low < 1 / 3 and found.sides.low < 1 / 2
    (leaking,) = separations(states, labels, np.arange(300).astype(str), TERMS, seed=0)
    assert leaking.balanced.value > 0.99 and leaking.sides.value > 0.99  # were the questions not kept together


def test_a_rare_label_weighs_as_much_as_a_frequent_one():
    states, labels, questions = planted(1, uneven=True)
    states[:, 0, 0] += 1.2 * torch.tensor(labels == "c")  # one in ten: "never c" would be right nine times in ten
    (found,) = separations(states, labels, questions, {("a", "b"): 1, ("c",): -1}, seed=0)
    assert found.sides.value > 0.68 and found.direction.value > 0.68


def test_each_layer_is_judged_by_its_own_states():
    noise, labels, questions = planted()
    clear = noise.clone()
    clear[:, 0, 0] += 20 * torch.tensor(labels == "a")
    first, second = separations(torch.cat([noise, clear], dim=1), labels, questions, TERMS, seed=0)
    assert first.sides.value < 0.7 and second.sides.value == 1


def test_the_direction_alone_misses_what_lies_across_it():
    """A loud axis without meaning tilts the difference of the means; a probe looks past it."""
    states, labels, questions = planted()
    away = torch.tensor(labels != "a")
    states[:, 0, 0] = 20.0 * away + 0.1 * states[:, 0, 0]
    states[:, 0, 1] *= 200
    (found,) = separations(states, labels, questions, TERMS, seed=0)
    assert found.sides.value > 0.99 and found.direction.value < 0.95


def test_places_are_compared_within_a_fold_as_each_has_an_origin_of_its_own():
    """All states lie far out, where directions that differ a little lead to places that differ much."""
    states, labels, questions = planted()
    states[:, 0, 0] += 1.5 * torch.tensor(labels == "a")
    (near,) = separations(states, labels, questions, TERMS, seed=0)
    (far,) = separations(states + 1e4, labels, questions, TERMS, seed=0)
    assert 0.8 < near.direction_auc.value < 0.95
    assert far.direction_auc.value == pytest.approx(near.direction_auc.value, abs=1e-3)
    assert far.sides_auc.value == pytest.approx(near.sides_auc.value, abs=1e-3)


def test_the_aucs_are_those_of_folds_that_neither_probe_nor_direction_has_seen():
    states, labels, questions = planted(2)
    states[:, 0, 0] += torch.tensor(labels == "a")
    (found,) = separations(states, labels, questions, TERMS, seed=3)
    splits = StratifiedGroupKFold(5, shuffle=True, random_state=3).split(labels, labels, questions)
    areas, pairs, plain, toward = [], [], states[:, 0].numpy(), labels == "a"
    for train, test in splits:
        along = plain[train][toward[train]].mean(axis=0) - plain[train][~toward[train]].mean(axis=0)
        probe = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
        odds = probe.fit(plain[train], toward[train]).predict_log_proba(plain[test])
        areas.append([roc_auc_score(toward[test], one) for one in (plain[test] @ along, odds[:, 1] - odds[:, 0])])
        pairs.append(toward[test].sum() * (~toward[test]).sum())
    truth = np.average(areas, axis=0, weights=pairs)
    assert [found.direction_auc.value, found.sides_auc.value] == pytest.approx(truth.tolist())


def test_states_that_are_all_one_tell_nothing_apart_and_break_nothing(tmp_path):
    states, labels, questions = planted()
    states = torch.cat([torch.full_like(states, 0.1), states], dim=1).float()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, _ = separations(states, labels, questions, TERMS, seed=0)
        assert found.silhouette is None
        for estimate, chance in ((found.balanced, 1 / 3), (found.sides, 1 / 2), (found.direction, 1 / 2)):
            assert estimate.value == pytest.approx(chance)
        assert found.sides_auc.value == found.direction_auc.value == 0.5
        vectors = probe_direction(states, leads_to(labels, TERMS))
        assert not vectors[0].any() and vectors[1].any() and not direction(states, labels, TERMS)[0].any()
        one = states[:, 0].double().numpy()
        assert not principal(one)[0].any() and not tsne(one, seed=0).any()


def test_what_the_probe_found_is_in_the_space_of_the_states_as_they_are():
    """Where the two sides differ along one axis of noise, the best direction is the inverse of the noise's covariance
    times that axis, whatever the scales of the axes."""
    rng = np.random.default_rng(0)
    scales, toward = np.array([0.1, 1.0, 50.0]), rng.random(4000) < 0.5
    noise = rng.normal(size=(4000, 3)) @ np.array([[1, 0.8, 0], [0, 0.6, 0], [0, 0, 1]])
    states = (noise + np.outer(toward, [2, 0, 0])) * scales
    found = probe_direction(torch.tensor(states[:, None]), toward)[0].numpy()
    truth = np.linalg.solve(np.cov((noise * scales).T), np.array([2, 0, 0]) * scales)
    assert found @ truth / np.linalg.norm(found) / np.linalg.norm(truth) > 0.999
    assert found[0] > 0


def test_the_same_seed_gives_the_same_figures_whatever_the_order():
    states, labels, questions = planted()
    states[:, 0, 0] += torch.tensor(labels == "a")
    order = np.random.default_rng(3).permutation(N)
    one = separations(states, labels, questions, TERMS, seed=5)[0]
    other = separations(states[order], labels[order], questions[order], TERMS, seed=5)[0]
    for name in ("accuracy", "balanced", "sides", "direction", "sides_auc", "direction_auc"):
        assert getattr(one, name) == getattr(other, name)
    assert one.silhouette == pytest.approx(other.silhouette)


def test_shuffled_labels_are_those_of_one_question_each():
    questions = np.array([f"q{index // 4}" for index in range(40)])
    labels = np.array([LABELS[index // 4 % 2] for index in range(40)])  # one label a question
    moved = shuffled(labels, questions, seed=0)
    assert sorted(moved) == sorted(labels) and (moved != labels).any()
    assert all(len(set(moved[questions == question])) == 1 for question in questions)


def test_shuffled_labels_keep_no_order_within_a_question():
    labels, questions = np.array(["a", "b"] * 30), np.repeat(np.arange(30), 2).astype(str)
    first = shuffled(labels, questions, seed=0)[::2].tolist()
    assert 5 < first.count("b") < 25


def thoughts(id, *labels, sample=0):
    spans = tuple(Span(label, 2 * place, 2 * place + 2) for place, label in enumerate(labels))
    return Passage(id, tuple(range(40)), spans, sample)


PASSAGES = [thoughts(f"q{index}", *"aab" * (1 + index % 3), "c") for index in range(12)]


def test_examples_are_drawn_evenly_over_responses():
    chosen = choose(PASSAGES, [("a",), ("b",)], n_examples=24, seed=0)
    counts = {label: [sum(s.label == label for s in p.spans) for p in chosen] for label in LABELS}
    assert counts["a"] == [2] * 12 and sum(counts["b"]) == 24 and min(counts["b"]) == 1 and sum(counts["c"]) == 0
    few = choose(PASSAGES, [("a",)], n_examples=7, seed=0)
    assert [len(passage.spans) for passage in few] == [1] * 7
    everything = choose(PASSAGES, [LABELS], n_examples=1000, seed=0)
    assert sorted(everything, key=lambda p: p.id) == sorted(PASSAGES, key=lambda p: p.id)  # in their own order


def test_the_choice_depends_on_the_seed_and_not_on_the_order():
    one = choose(PASSAGES, [LABELS], 9, seed=0)
    assert one == choose(PASSAGES[::-1], [LABELS], 9, seed=0) != choose(PASSAGES, [LABELS], 9, seed=1)


def test_a_label_of_too_few_questions_is_left_out_unless_its_side_has_no_other():
    samples = [replace(thoughts("q0", "d", "a"), sample=sample) for sample in range(9)]
    chosen = choose([*PASSAGES, *samples], [("a",), ("d", "b", "e")], 1000, seed=0)
    assert {span.label for passage in chosen for span in passage.spans} == {"a", "b"}
    with pytest.raises(InputError, match=r"d in the responses to 1 questions, e in .* 0 questions: a probe needs 5"):
        choose([*PASSAGES, *samples], [("a",), ("d", "e")], 100, seed=0)


def test_the_views_keep_clusters_apart_and_can_be_drawn(tmp_path):
    states, labels, questions = planted()
    states[:, 0, :3] += 40 * torch.tensor([[label == one for one in LABELS] for label in labels])
    plain = states[:, 0].numpy()
    points, shares = principal(plain)
    for view in (points, tsne(plain, seed=0)):
        centres = np.stack([view[labels == label].mean(axis=0) for label in LABELS])
        nearest = np.linalg.norm(view[:, None] - centres, axis=2).argmin(axis=1)
        assert [LABELS[index] for index in nearest] == labels.tolist()
    assert shares[0] >= shares[1] > 0 and sum(shares) <= 1
    rows = [[View("PCA", points)] * 2, [View("t-SNE", points)]]
    states_figure(rows, labels, LABELS, tmp_path / "states.png")
    found = separations(states, labels, questions, TERMS, seed=0)
    separability_figure(found, [None], 3, "a", tmp_path / "separability.png")


def test_the_script_judges_every_layer_of_the_embedded_model(tmp_path):
    here = ("--artifacts", tmp_path)
    run("generate_responses.py", *here, "--n_questions", 48, "--max_length", 300)
    flags = ("--control", "thinking_length_mlp", "--quantile", 0.3, "--n_examples", 12, "--layers", 5)
    out = run("-m scripts.separate_classes", *here, *flags)
    path = store.separability_path(tmp_path, "tiny-reasoner", "arithmetic", "thinking_length_mlp")
    found = store.read_json(path)
    assert found["labels"] == {"long": 12, "short": 12} and found["questions"] == 24 and found["chance"] == 0.5
    assert [one["layer"] for one in found["layers"]] == list(range(6)) and "layer 5: balanced" in out
    assert max(one["balanced"]["low"] for one in found["layers"]) > 0.6  # a chain's states tell how long it is
    for picture in (store.figure_path(path), path.with_name("arithmetic.thinking_length_mlp.states.png")):
        assert picture.read_bytes().startswith(b"\x89PNG")
    manifest = store.read_json(store.manifest_path(path))
    assert manifest["finished"] and manifest["settings"]["n_examples"] == 12


def test_the_pictured_layers_are_those_asked_for_or_spread_over_the_model():
    assert chosen_layers([3, 1], [3], 6) == [3, 1]
    assert chosen_layers(None, list(range(28)), 28) == [0, 14, 27] and chosen_layers(None, [0], 1) == [0]
    assert chosen_layers(None, [1, 2, 3], 4) == [1, 2, 3]
    with pytest.raises(InputError, match="--layers 6: the model's layers are 0 to 5"):
        chosen_layers([2, 6], [2], 6)


def test_a_direction_of_one_label_has_no_classes_to_tell_apart(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["separate_classes", "--control", "backtracking"])
    with pytest.raises(SystemExit):
        parse_args()
    assert "invalid choice: 'backtracking'" in capsys.readouterr().err
