from typing import Any

from tests.synthetic import evaluation, record
from thinksteer.records import Record
from thinksteer.significance import holm
from thinksteer.sweep import change, change_of, points_of
from thinksteer.sweep_tables import Contrast, sweep_tables
from thinksteer.tables import Table

SEAL = {"control": "seal", "adds_to": "layers"}


def made(base: list[Record], steered: list[Record], *contrasts: Contrast) -> dict[str, Table]:
    points = [SEAL | point for point in points_of({(None, 0.0): (base, 300), (3, 1.0): (steered, 300)})]
    return {table.name: table for table in sweep_tables("m on d", "m.d", points, contrasts)}


def rows(table: Table) -> list[dict[str, Any]]:
    return [dict(zip([column.title for column in table.columns], row, strict=True)) for row in table.rows]


def test_a_row_per_setting_says_what_it_is_how_it_does_and_what_changed():
    base, steered = evaluation(0, 60, 1), evaluation(1, 60, 1, gain=0.2, longer=-30)
    zero, one = rows(made(base, steered)["m.d.steering"])
    found = change(base, steered)
    assert [(row["control"], row["added to"], row["weight"], row["n"]) for row in (zero, one)] == [
        ("seal", "–", "0", 60),
        ("seal", "layer 3", "1", 60),
    ]
    assert (one["accuracy"].n, one["accuracy"].value) == (60, sum(r.correct for r in steered) / 60)
    assert one["tokens"].value == sum(r.response_tokens for r in steered) / 60
    assert (one["accuracy change"], one["token change"]) == (found.accuracy, found.tokens)
    assert (one["thinking change"], one["McNemar p"]) == (found.length, found.mcnemar_p)
    assert zero["accuracy change"] is None and zero["token change"] is None


def test_settings_of_other_questions_are_named_and_their_pairs_counted():
    base, steered = evaluation(0, 60, 1), evaluation(1, 80, 1)[20:]  # as many responses, of other questions
    table = made(base, steered)["m.d.steering"]
    assert "NOT OF THE SAME RESPONSES" in table.note
    zero, one = rows(table)
    assert (zero["n"], one["n"], one["pairs"], one["accuracy change"].n) == (60, 60, 40, 40)
    alike = made(base, evaluation(1, 60, 1))["m.d.steering"]
    assert "NOT OF THE SAME" not in alike.note and "pairs" not in [column.title for column in alike.columns]


def test_p_is_corrected_for_the_settings_of_its_own_control():
    base = evaluation(0, 60, 1)
    runs = {(layer, 1.0): (evaluation(layer + 1, 60, 1, gain=0.1 * layer), 300) for layer in range(3)}
    points = [SEAL | point for point in points_of({(None, 0.0): (base, 300), **runs})]
    alone = [
        {**SEAL, "control": "other"} | point for point in points_of({(None, 0.0): (base, 300), (0, 1.0): runs[0, 1.0]})
    ]
    by_control = rows(sweep_tables("m on d", "m.d", [*points, *alone], [])[0])
    zero, *three = by_control[:4]
    plain = [row["McNemar p"] for row in three]
    assert [row["Holm p"] for row in three] == holm(plain) and min(holm(plain)) == 3 * min(plain) < 0.05
    assert zero["Holm p"] is None and by_control[-1]["McNemar p"] == plain[0] and by_control[-1]["Holm p"] is None
    found = [Contrast(point, f"seal.random{seed}", change_of(point)) for seed in (0, 1) for point in points[1:]]
    beyond = rows(sweep_tables("m on d", "m.d", points, found)[2])
    assert [row["Holm p"] for row in beyond] == 2 * holm(plain)  # of each random control's


def test_a_single_setting_has_nothing_to_correct():
    assert "Holm p" not in rows(made(evaluation(0, 20, 2), evaluation(1, 20, 2))["m.d.steering"])[0]


def test_the_change_is_split_by_how_the_unsteered_ended_with_the_number_of_each():
    base = [record(f"q{index}", correct=index > 2, status="capped" if index < 4 else "closed") for index in range(10)]
    _, one = rows(made(base, [record(f"q{index}", correct=index != 9) for index in range(10)])["m.d.steering_ends"])
    assert (one["twin capped: n"], one["twin capped: change"].value) == (4, 3 / 4)
    assert (one["twin finished: n"], one["twin finished: change"].value) == (6, -1 / 6)
    assert (one["budget"], one["hit the cap"], one["degenerate"]) == (300, 0, 0)


def test_where_nobody_was_capped_the_table_says_none_and_leaves_the_change_out():
    _, one = rows(made(evaluation(0, 20, 1), evaluation(1, 20, 1))["m.d.steering_ends"])
    assert one["twin capped: n"] == 0 and "twin capped: change" not in one and one["twin finished: n"] == 20


def test_what_goes_beyond_a_random_direction_has_a_table_where_there_is_one():
    base, steered, other = evaluation(0, 60, 1), evaluation(1, 60, 1, gain=0.2), evaluation(2, 60, 1)
    assert list(made(base, steered)) == ["m.d.steering", "m.d.steering_ends"]
    setting = SEAL | {"weight": 1.0, "layer": 3}
    found = made(base, steered, Contrast(setting, "seal.random0", change(other, steered)))
    (row,) = rows(found["m.d.steering_beyond"])
    assert (row["control"], row["added to"], row["minus"]) == ("seal", "layer 3", "seal.random0")
    assert row["accuracy change"] == change(other, steered).accuracy
