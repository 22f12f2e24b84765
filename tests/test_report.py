from tests.synthetic import evaluation
from thinksteer.comparison import Difference, Family, Member, Summary, differences, summaries
from thinksteer.report import tables
from thinksteer.tables import Table


def compared(n_samples: int, *datasets: str) -> tuple[list[Summary], list[Difference]]:
    found, changes = [], []
    for world, dataset in enumerate(datasets):
        members = (
            Member("base", "base", evaluation(0, 60, n_samples, world=world), 500),
            Member("edit", "edited", evaluation(1, 60, n_samples, gain=0.1, world=world), None),
            Member("random", "control", evaluation(2, 60, n_samples, world=world), 500),
        )
        found += summaries(Family(dataset, members))
        changes += differences(Family(dataset, members))
    return found, changes


def by_name(made: list[Table]) -> dict[str, Table]:
    return {table.name: table for table in made}


def test_overall_tables_have_models_as_rows_and_datasets_as_columns():
    found, changes = compared(2, "gsm8k", "MATH-500")
    table = by_name(tables(found, changes))["accuracy_overall"]
    assert [column.title for column in table.columns] == ["model", "role", "gsm8k", "MATH-500"]
    assert [row[:2] for row in table.rows] == [("base", "base"), ("edit", "edited"), ("random", "control")]
    assert table.rows[1][3] == next(one for one in found if one.model == "edit" and one.dataset == "MATH-500").accuracy


def test_a_model_not_evaluated_on_a_dataset_has_an_empty_cell():
    found, changes = compared(1, "gsm8k", "MATH-500")
    table = by_name(tables(found[:-1], changes))["length_overall"]
    assert table.rows[2][3] is None and table.rows[2][2] is not None


def test_every_table_is_made_and_no_column_is_empty_of_meaning():
    names = {samples: [table.name for table in tables(*compared(samples, "gsm8k"))] for samples in (1, 2)}
    common = ["accuracy_overall", "length_overall", "accuracy_shortest", "length_shortest"]
    common += ["accuracy_matched", "length_matched", "difference_overall", "difference_matched"]
    assert names[1] == [*common, "responses"]
    assert names[2] == [*common, "difference_held_out", "responses"]
    p_columns = [by_name(tables(*compared(samples, "gsm8k")))["difference_overall"].columns[-1] for samples in (1, 2)]
    assert [column.title for column in p_columns] == ["McNemar p", "McNemar p"]


def test_effects_and_controls_are_in_one_table_grouped():
    table = by_name(tables(*compared(2, "gsm8k")))["difference_matched"]
    assert [row[1] for row in table.rows] == ["edit", "control", "edit minus control"]


def test_without_a_base_there_are_no_matched_and_no_difference_tables():
    found = summaries(Family("gsm8k", (Member("edit", "edited", evaluation(0, 60, 1), 500),)))
    names = [table.name for table in tables(found, [])]
    assert names == ["accuracy_overall", "length_overall", "accuracy_shortest", "length_shortest", "responses"]


def test_an_unknown_budget_is_an_empty_cell():
    table = by_name(tables(*compared(1, "gsm8k")))["responses"]
    assert [row[6] for row in table.rows] == [500, None, 500]


def test_models_with_other_numbers_of_samples_are_named_and_counted():
    members = (
        Member("base", "base", evaluation(0, 60, 3), 500),
        Member("edit", "edited", evaluation(1, 50, 2, gain=0.1), 500),
    )
    made = Family("gsm8k", members)
    unequal = by_name(tables(summaries(made), differences(made)))
    for name in ("accuracy_overall", "length_overall", "accuracy_shortest", "length_shortest"):
        assert unequal[name].note.startswith("THE ROWS ARE NOT OF THE SAME RESPONSES")
    assert [row[2:6] for row in unequal["responses"].rows] == [(180, 100, 60, 3), (100, 100, 50, 2)]
    assert unequal["difference_overall"].rows[0][:5] == ("gsm8k", "edit", "edit", "base", 100)
    assert unequal["accuracy_matched"].rows[0][-1] == unequal["accuracy_matched"].rows[1][-1]
    equal = by_name(tables(*compared(2, "gsm8k")))
    assert not any("NOT OF THE SAME" in table.note for table in equal.values())
