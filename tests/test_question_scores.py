"""Scores between memory and reasoning: the rule against a language model's reading, prompts, answers, agreement."""

import json
import random
from pathlib import Path

import pytest
from test_data import shared

from thinksteer.question_scores import agreement, answered_score, prompt, rule_score

SCORED = Path(__file__).with_name("mmlu_pro_scores_200.json")  # by a language model, before the rule was written
SUM = "Calculate the mass of 3 bodies of 4.5 kg each, if the scale shows 10% too much."
NAME = "What is the liquid in a thermometer called?"
OPTIONS = ["1.5 kg", "12.15 kg", "13.5 kg"]


def test_the_rule_agrees_with_what_a_language_model_read_as_far_as_is_stated() -> None:
    rows = map(json.loads, shared("mmlu_pro_sample3000_seed8888_noscore.jsonl").open(encoding="utf-8"))
    by_id = {str(row["question_id"]): row for row in rows}
    read = json.loads(SCORED.read_text())
    ids = random.Random(0).sample(list(by_id), 200)
    assert sorted(ids) == sorted(read)
    scores = [rule_score(by_id[id]["question"], by_id[id]["options"], by_id[id]["category"]) for id in ids]
    trust = agreement(ids, scores, [read[id] for id in ids])
    assert (trust.n, round(trust.accuracy.value, 3), round(trust.auc, 3)) == (200, 0.92, 0.974)
    assert [round(value, 2) for value in (trust.kappa.value, trust.kappa.low, trust.kappa.high)] == [0.84, 0.76, 0.91]


def test_the_rule_tells_a_calculation_from_a_name_and_stays_within_bounds() -> None:
    assert rule_score(SUM, OPTIONS, "physics") > 0.9 and rule_score(NAME, ["mercury", "lead"], "physics") < 0.3
    assert rule_score(NAME, ["mercury"], "chemistry") > rule_score(NAME, ["mercury"], "history")
    assert 0 <= rule_score("", [""], "") < 0.5 < rule_score(SUM * 100, OPTIONS, "math") <= 1


def test_numeric_options_raise_the_score_and_words_do_not() -> None:
    words = ["a body of 3 equal parts", "two equal bodies on it", "no body at all there"]
    assert rule_score(SUM, OPTIONS, "law") > rule_score(SUM, [*OPTIONS[:2], words[2]], "law")
    assert rule_score(SUM, words, "law") == rule_score(SUM, ["none"] * 3, "law")
    assert rule_score("Which?", [r"$\frac{1}{2} \mathrm{~kg}$"], "law") > rule_score("Which?", ["half of it"], "law")


def test_a_judge_reads_category_question_and_every_option() -> None:
    asked = prompt("Is {it} 3?", ["yes", "no {x}"], "math")
    assert asked.endswith("Category: math\nQuestion: Is {it} 3?\nOptions:\n(A): yes\n(B): no {x}")


@pytest.mark.parametrize(
    "answer, score",
    [
        ("0.35", 0.35),
        (" 1\n", 1.0),
        ("0", 0.0),
        ("I would say .7.", 0.7),
        ("<think>3 steps, so 0.9</think>\n\n0.8", 0.8),
        ("0.4 or 0.5", None),
        ("0.8/1", None),
        ("1.2", None),
        ("-0.2", None),
        ("high", None),
        ("", None),
    ],
)
def test_an_answer_is_one_number_from_0_to_1(answer: str, score: float | None) -> None:
    assert answered_score(answer) == score


def test_agreement_is_counted_by_kind_and_ranked_by_score() -> None:
    others = [0.9, 0.6, 0.51, 0.5, 0.2, 0.0]
    trust = agreement(list("abcdef"), [0.9, 0.8, 0.3, 0.6, 0.1, 0.2], others)
    assert trust.n == 6 and trust.accuracy.value == pytest.approx(4 / 6)
    assert trust.kappa.value == pytest.approx(1 / 3)  # 4/6 agreed, 1/2 by chance
    assert trust.auc == pytest.approx(8 / 9)
    ties = agreement(list("ab"), [0.5, 0.5], [0.6, 0.4])
    assert ties.auc == 0.5


def test_where_all_are_of_one_kind_there_is_nothing_to_agree_on() -> None:
    trust = agreement(list("ab"), [0.9, 0.8], [0.7, 0.6])
    assert trust.accuracy.value == 1 and trust.kappa is None and trust.auc is None
