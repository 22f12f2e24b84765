import pytest

from thinksteer.published import SPREAD, Published, Stated, published, published_heads, share_of, stated

NUMBERS = published()


def number(value: float, measure: str = "accuracy", questions: int = 7, runs: int = 1, decimals: int = 2) -> Published:
    return Published("t", "s", "m", "d", measure, value, decimals, runs, questions, None)


def test_every_table_is_read_whole_and_says_where_it_stands():
    of = {name: [one for one in NUMBERS if one.table == name] for name in {one.table for one in NUMBERS}}
    assert {name: len(found) for name, found in of.items()} == {
        "thinkedit.accuracy": 8 * 5 * 2,
        "thinkedit.shortest": 8 * 5 * 3,
        "seal.unsteered": 2,
        "seal.steered": 2,
    }
    assert all("github.com" in one.source or "arXiv" in one.source for one in NUMBERS)
    cells = {
        (one.model, one.dataset, one.measure): one.value for one in of["thinkedit.accuracy"] + of["thinkedit.shortest"]
    }
    assert cells["ThinkEdit-deepseek-qwen-1.5b", "mmlu_elementary_math", "accuracy"] == 90.66
    assert cells["deepseek-llama3-8b", "MATH-500", SPREAD] == 1.16
    assert cells["deepseek-qwen-14b", "MATH-level5", "shortest 10 %"] == 94.32
    assert [(one.value, one.unit, one.steering.weight, one.steering.layer) for one in of["seal.steered"]] == [
        (78.0, "%", 1, 19),
        (3154, "tokens", 1, 19),
    ]


def test_an_accuracy_is_attainable_if_some_number_of_right_answers_is_rounded_to_it():
    assert [value for value in range(101) if number(value, decimals=0).attainable] == [0, 14, 29, 43, 57, 71, 86, 100]
    assert number(28.57).attainable and not number(28.58).attainable
    assert number(33.33, "shortest 20 %", questions=15).attainable  # of three
    assert not number(40.0, "shortest 20 %", questions=15).attainable
    assert number(40.0, "shortest 20 %", questions=15, runs=5).attainable
    assert number(12.345, SPREAD).attainable is None and number(7, "tokens").attainable is None


def test_of_the_published_accuracies_three_come_from_no_count_of_ten_runs():
    odd = {(one.model, one.dataset, one.measure, one.value) for one in NUMBERS if one.attainable is False}
    where = ("ThinkEdit-deepseek-qwen-14b", "MATH-level1")
    assert odd == {
        (*where, "shortest 5 %", 99.53),
        (*where, "shortest 10 %", 98.62),
        (*where, "shortest 20 %", 98.67),
    }


def test_the_shortest_are_counted_as_upstream_rounds():
    assert [share_of(percent, 378) for percent in (5, 10, 20)] == [18, 37, 75]
    assert share_of(10, 500) == 50 and share_of(5, 19) == 0


def test_what_the_abstract_says_is_held_against_the_tables():
    gains = {one.measure: one for one in stated() if one.table == "thinkedit.abstract"}
    overall, short = gains["gain, accuracy"], gains["gain, shortest 5 %"]
    # README's means over four models and five data sets, by hand: 45.94 and 43.555 points apart.
    assert overall.follows == pytest.approx(2.384, abs=1e-6) and not overall.agrees and overall.value == 3.34
    assert short.follows == pytest.approx(5.291, abs=1e-6) and not short.agrees


def test_the_share_of_edited_heads_follows_from_the_lists():
    shares = {one.model: one for one in stated() if one.table == "thinkedit.heads"}
    assert shares["deepseek-qwen-1.5b"].follows == pytest.approx(100 * 20 / 336)
    assert {model for model, one in shares.items() if one.agrees} == {"deepseek-qwen-14b", "deepseek-llama3-8b"}
    assert all(published_heads(model) for model in shares)
    assert (
        Stated("t", "s", "m", "x", 4.0, 0, "%", 4.5).agrees and not Stated("t", "s", "m", "x", 4.0, 0, "%", 4.51).agrees
    )


def test_upstreams_lists_of_heads_have_the_published_counts_and_order_and_fit_their_models():
    counts = {"deepseek-qwen-1.5b": 20, "deepseek-llama3-8b": 40, "deepseek-qwen-14b": 80, "deepseek-qwen-32b": 160}
    grids = {"deepseek-qwen-1.5b": (28, 12), "deepseek-llama3-8b": (32, 32)}
    grids |= {"deepseek-qwen-14b": (48, 40), "deepseek-qwen-32b": (64, 40)}
    for key, count in counts.items():
        heads = published_heads(key)
        assert len(heads) == len(set(heads)) == count
        assert all(layer < grids[key][0] and head < grids[key][1] for layer, head in heads)
    assert published_heads("deepseek-qwen-14b")[:3] == [(36, 9), (36, 7), (28, 21)]
    assert published_heads("tiny-reasoner") == []
