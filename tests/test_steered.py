"""Which settings of steering belong together."""

from thinksteer.steered import Setting, beside_random, sweeps

SETTINGS = [
    Setting(control, layer, weight)
    for control, layer, weight in (
        ("a.unit", None, 0.0),
        ("a.unit", 3, 1.0),
        ("a.unit", 3, -1.0),
        ("a.unit", None, 1.0),
        ("a.unit.random7", 3, 1.0),
        ("a.unit.random12", 3, 1.0),
        ("a.unit.random7", None, 0.0),
        ("a.random7", 3, 1.0),
    )
]


def test_a_random_control_is_told_by_its_name_and_knows_what_it_stands_beside():
    of, plain = Setting("a.unit.random7", 3, 1.0), Setting("a.random.unit", None, 1.0)
    assert of.random and of.of == "a.unit" and not plain.random and plain.of == "a.random.unit"
    assert [one.place for one in (of, plain, Setting("a", None, 0.0))] == ["layer 3", "all its layers", "–"]


def test_a_sweep_is_of_one_control_and_layer_in_the_order_of_weights_with_its_random_controls():
    one, everywhere = sweeps(SETTINGS)
    assert [run.weight for run in one.runs] == [-1.0, 0.0, 1.0] and one.title == "a.unit, layer 3"
    assert [[run.control for run in random] for random in one.random] == [[], [], ["a.unit.random7", "a.unit.random12"]]
    assert [run.layer for run in everywhere.runs] == [None, None] and everywhere.title == "a.unit"
    assert everywhere.random == ((), ())
    assert one.ends(None, None) == (-1.0, 1.0) and one.ends(-0.5, 2.0) == (-0.5, 2.0)


def test_random_controls_are_of_the_same_control_weight_and_layer():
    assert beside_random(SETTINGS[1], SETTINGS) == SETTINGS[4:6]
    assert beside_random(SETTINGS[2], SETTINGS) == beside_random(SETTINGS[3], SETTINGS) == []
