"""The finished settings of steering on the disk: what is found, and what cannot be compared."""

import pytest

from thinksteer import store
from thinksteer.records import InputError
from thinksteer.steered_files import find_settings


@pytest.fixture
def make(tmp_path):
    def make(control, weight, layer=None, budget=100):
        path = store.steering_path(tmp_path, "m", "d", control, weight, layer)
        with store.run(path, {"max_length": budget}, [], False), store.RecordLog(path):
            pass
        return path

    return make


def found(root, *flags):
    return [(one.control, one.layer, one.weight) for one in find_settings(root, "m", "d", *flags)]


def test_every_control_is_found_with_its_random_ones_by_layer_and_weight(tmp_path, make):
    for weight, layer in ((1.0, 3), (-10.0, 3), (0.5, None), (0.0, None), (1.0, 12)):
        make("a.unit", weight, layer)
    make("b", 0.0)
    make("a.unit.random1", 1.0, 3)
    make("a.unit.random0", 1.0, 3)
    of_a = [("a.unit", *one) for one in ((None, 0.0), (None, 0.5), (3, -10.0), (3, 1.0), (12, 1.0))]
    of_a += [("a.unit.random0", 3, 1.0), ("a.unit.random1", 3, 1.0)]
    assert found(tmp_path, None) == [*of_a, ("b", None, 0.0)]
    assert found(tmp_path, ["b"]) == found(tmp_path, None, ["b", "c"]) == [("b", None, 0.0)]
    assert found(tmp_path, None, ["a"]) == of_a
    assert find_settings(tmp_path, "m", "d", ["b"])[0].records == store.steering_path(tmp_path, "m", "d", "b", 0, None)


def test_what_is_not_there_is_named(tmp_path, make):
    make("a", 0.0)
    make("a.random0", 0.0)
    with pytest.raises(InputError, match=r"no finished steering by b a\.random0; there is a: "):
        find_settings(tmp_path, "m", "d", ["a", "b", "a.random0"])
    with pytest.raises(InputError, match="no finished steering, of controls named after b; there is a: "):
        find_settings(tmp_path, "m", "d", None, ["b"])
    with pytest.raises(InputError, match=r"no finished steering: run steer_eval\.py"):
        find_settings(tmp_path, "m", "other", None)


def test_without_weight_zero_or_with_two_budgets_nothing_is_compared(tmp_path, make):
    make("a", 1.0)
    make("a.random0", 0.0)
    with pytest.raises(InputError, match="no finished weight 0"):
        find_settings(tmp_path, "m", "d", ["a"])
    make("a", 0.0, budget=200)
    with pytest.raises(InputError, match="at most 100 and 200 tokens a response"):
        find_settings(tmp_path, "m", "d", ["a"])


def test_a_file_of_another_name_is_refused_and_one_that_is_not_finished_left_out(tmp_path, make):
    make("a", 0.0)
    path = make("a", 1.0)
    manifest = store.manifest_path(path)
    store.write_json(manifest, store.read_json(manifest) | {"finished": None})
    begun = store.manifest_path(make("b", 1.0))
    store.write_json(begun, store.read_json(begun) | {"finished": None})
    assert found(tmp_path, None) == [("a", None, 0.0)]
    with pytest.raises(InputError, match="no finished steering by b; there is a: "):
        find_settings(tmp_path, "m", "d", ["b"])
    path = make("a", 2.0)
    store.manifest_path(path).rename(store.manifest_path(path.with_name("notes.jsonl")))
    path.rename(path.with_name("notes.jsonl"))
    with pytest.raises(InputError, match=r"notes\.jsonl is not named after a weight"):
        find_settings(tmp_path, "m", "d", None)
