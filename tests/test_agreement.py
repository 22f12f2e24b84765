"""Kappa against scikit-learn's and against counts by hand, and the script that compares two annotators' files."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from test_annotate import command, process
from test_stages import MODEL, run

from thinksteer import store
from thinksteer.agreement import NONE, OVERALL, Both, compare, kappas, table
from thinksteer.agreement_figures import confusion_figure
from thinksteer.annotation import Annotation, Section
from thinksteer.annotations import read_annotations
from thinksteer.records import InputError
from thinksteer.tables import as_json

LETTERS = {"d": "deduction", "b": "backtracking", "s": "summing-up", ".": None}


def annotation(id, letters):
    """A section for every letter that is no dot."""
    parts = [Section(LETTERS[one], place, place + 1, 0, 0) for place, one in enumerate(letters) if LETTERS[one]]
    return Annotation(id, 0, "", tuple(parts), (), 0)


def both(first, second, id="q1", text=None):
    return Both(text or "x" * len(first), 0, len(first), annotation(id, first), annotation(id, second))


def test_kappa_is_scikit_learns():
    rng = random.Random(0)
    pairs = [["".join(rng.choices("dbs.", (5, 2, 1, 1), k=30)) for _ in range(2)] for _ in range(12)]
    pairs = [
        (first, "".join(rng.choice((a, b)) for a, b in zip(first, second, strict=True))) for first, second in pairs
    ]
    found = kappas(compare([both(*pair, id=f"q{index}") for index, pair in enumerate(pairs)]))
    first, second = (list("".join(side)) for side in zip(*pairs, strict=True))
    assert found[OVERALL].value == pytest.approx(cohen_kappa_score(first, second))
    for letter, label in LETTERS.items():
        own = [[one == letter for one in side] for side in (first, second)]
        assert found[label or NONE].value == pytest.approx(cohen_kappa_score(*own))
        assert found[label or NONE].low < found[label or NONE].value < found[label or NONE].high
    assert found[OVERALL].n == 12


def test_counts_are_of_characters_of_thinking_without_white_space():
    text = "<th>ab c\nd</th>"
    first = Annotation("q1", 0, "", (Section("deduction", 4, 8, 0, 0),), (), 0)
    second = Annotation("q1", 0, "", (Section("deduction", 4, 6, 0, 0), Section("x", 7, 10, 0, 0)), (), 0)
    agreement = compare([Both(text, 4, 10, first, second)])
    assert agreement.labels == ("deduction", "x", NONE)
    assert agreement.counts[0].tolist() == [[2, 1, 0], [0, 0, 0], [0, 1, 0]]


def test_labels_are_the_six_in_their_order_then_others_then_none():
    assert compare([both("s.bd", "dddd")]).labels == ("deduction", "backtracking", "summing-up", NONE)


def test_agreement_is_one_and_chance_is_zero():
    same = kappas(compare([both("ddbb", "ddbb"), both("dbdb", "dbdb", "q2")]))
    assert {one.value for one in same.values()} == {1}
    chance = kappas(compare([both("ddbb", "dbdb"), both("dbbd", "ddbb", "q2")]))
    assert chance[OVERALL].value == pytest.approx(0)
    assert kappas(compare([both("dddd", "dddd")]))[OVERALL] is None  # nothing to tell apart
    with pytest.raises(InputError, match="no response with thinking was annotated by both"):
        compare([both("", "")])


def test_samples_of_one_question_are_resampled_together():
    pairs = [("ddbb", "ddbb"), ("ddbb", "dbdb"), ("bbdd", "ddbb"), ("dbdb", "dbdd")]
    once = [both(*pair, id=f"q{index}") for index, pair in enumerate(pairs)]
    few, many = kappas(compare(once))[OVERALL], kappas(compare(once * 25))[OVERALL]
    assert (many.low, many.high) == pytest.approx((few.low, few.high)) and many.n == 100
    apart = kappas(compare([both(*pair, id=f"{i}-{j}") for j in range(25) for i, pair in enumerate(pairs)]))[OVERALL]
    assert apart.high - apart.low < (few.high - few.low) / 3
    alone = kappas(compare([both("ddbb", "ddbd")]))[OVERALL]
    assert (alone.low, alone.high) == (None, None)


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    """Annotators who agree by a known chance: the truth lies within in 9 of 10 worlds at least."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(60):
        world = []
        for question in range(40):
            first = rng.choice(["d", "b"], size=10)
            second = np.where(rng.random(10) < 0.6, first, rng.choice(["d", "b"], size=10))  # kappa 0.6
            world.append(both("".join(first), "".join(second), f"q{question}"))
        estimate = kappas(compare(world))[OVERALL]
        hits += estimate.low <= 0.6 <= estimate.high
    assert hits >= 52


def test_the_table_has_the_shares_of_either_and_the_characters_they_agree_on(tmp_path):
    agreement = compare([both("dddb", "ddbb"), both("dddd", "dds.", "q2")])
    rows = {row["label"]: row for row in as_json(table("name", agreement, "A", "B", "title"))["rows"]}
    assert list(rows) == ["deduction", "backtracking", "summing-up", NONE, OVERALL]
    assert rows["deduction"]["A: share of characters, %"] == 7 / 8
    assert rows["deduction"]["B: share of characters, %"] == 4 / 8
    assert rows["deduction"]["agreed characters, %"] == 5 / 8 and rows["backtracking"]["agreed characters, %"] == 7 / 8
    assert rows[OVERALL]["agreed characters, %"] == 5 / 8
    confusion_figure(agreement, "A", "B", tmp_path / "figure.png")


def test_the_script_compares_two_annotators(tmp_path):
    here = ("--artifacts", tmp_path)
    run("generate_responses.py", *here, "--n_questions", 100, "--max_length", 300)
    command("annotate", *here)
    command("annotate", *here, "--name", "half", "--n_responses", 50)
    records = store.responses_path(tmp_path, MODEL, "arithmetic")
    path = store.annotations_path(tmp_path, records, "half")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines[0]["sections"] = []  # of the 50, one is left bare
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    out = process("annotator_agreement", "keywords", "half", *here)
    result = store.agreement_path(tmp_path, "keywords", "half", MODEL, "arithmetic")
    rows = {row["label"]: row for row in store.read_json(result)["rows"]}
    assert rows[OVERALL]["kappa"]["n"] == 50 and 0.3 < rows[OVERALL]["kappa"]["value"] < 1
    bare = rows[NONE]["half: share of characters, %"]
    assert 0 < bare < 0.3 and rows[OVERALL]["agreed characters, %"] == pytest.approx(1 - bare)
    assert result.with_suffix(".md").read_text(encoding="utf-8") in out
    assert store.figure_path(result).read_bytes().startswith(b"\x89PNG") and result.with_suffix(".csv").exists()
    assert len(read_annotations(store.annotations_path(tmp_path, records, "keywords"), records)) == 100

    records.write_bytes(b"".join(records.read_bytes().splitlines(keepends=True)[:-1]))
    error = command("annotator_agreement", "keywords", "half", *here, "--overwrite", code=2)
    assert "made from other responses" in error
    assert "is missing" in command("annotator_agreement", "keywords", "nobody", *here, code=2)
    assert not Path(tmp_path, "annotations", "keywords-nobody.tiny-reasoner.arithmetic.agreement.json").exists()
