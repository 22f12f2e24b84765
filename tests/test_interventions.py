import json
from argparse import ArgumentParser

import pytest
import torch

from thinksteer import interventions, store
from thinksteer.methods import METHODS
from thinksteer.records import EVERYWHERE, Condition, InputError

ATTN = METHODS["thinking_length_attn"]
DIRECTION = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 2.0]])
NORMS = torch.tensor([7.0, 10.0, 1.0])


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "direction.safetensors"
    store.write_safetensors(path, {"direction": DIRECTION, "overall_norm": NORMS}, {})
    return path


def flags(*said):
    parser = ArgumentParser()
    interventions.add_flags(parser)
    return parser.parse_args(list(said))


def test_without_flags_a_method_is_applied_as_in_its_paper(file):
    args = flags()
    for method in METHODS.values():
        assert interventions.chosen(method, args) == method
    assert interventions.named("x", args) == "x"
    assert torch.equal(interventions.read_vectors(file, ATTN, args), DIRECTION)


def test_flags_take_the_place_of_what_the_paper_does():
    args = flags("--operation", "amplify", "--site", "block_in", "mlp_out", "--tokens", "response", "--from_layer", "2")
    method = interventions.chosen(METHODS["seal"], args)
    where = method.where(None)
    assert where == Condition(responding=True) and not method.constant
    edits = method.edits(method.spread(DIRECTION), (0, 1), 0.5, where)
    assert [(one.site, one.operation, one.layers, one.coef, one.where) for one in edits] == [
        ("block_in", "amplify", (0, 1), 0.5, where),
        ("mlp_out", "amplify", (0, 1), 0.5, where),
    ]
    assert all(torch.equal(one.vectors, DIRECTION[[2, 2, 2]]) for one in edits)
    everywhere = interventions.chosen(METHODS["seal"], flags("--tokens", "all"))
    assert everywhere.where(None) == EVERYWHERE and everywhere.constant
    own = interventions.chosen(method, flags("--from_layer", "own"))
    assert torch.equal(own.spread(DIRECTION), DIRECTION)


def test_only_what_a_bias_can_do_is_constant():
    for said, constant in (
        ((), True),
        (("--site", "mlp_out", "block_out"), True),
        (("--operation", "amplify"), False),
        (("--site", "block_in"), False),
        (("--tokens", "response"), False),
    ):
        method = interventions.chosen(ATTN, flags(*said))
        edits = method.edits(DIRECTION, (0,), 1.0, method.where(None))
        assert method.constant == constant == all(edit.constant for edit in edits)


def test_the_name_says_everything_that_differs():
    said = ["--operation", "add", "--site", "attn_out", "block_in", "--tokens", "all", "--from_layer", "own"]
    said += ["--scale", "overall", "--control_direction", "random", "--control_seed", "3"]
    assert interventions.named("seal", flags(*said)) == "seal.add.block_in+attn_out.all.from-own.overall.random3"


def test_sites_in_any_order_are_one_way_of_steering_and_none_counts_twice():
    ordered, mixed = flags("--site", "block_in", "mlp_out"), flags("--site", "mlp_out", "block_in", "mlp_out")
    assert interventions.named("x", ordered) == interventions.named("x", mixed) == "x.block_in+mlp_out"
    assert interventions.chosen(ATTN, mixed).sites == ("block_in", "mlp_out")


def test_a_seed_alone_makes_no_random_direction_and_is_refused():
    with pytest.raises(InputError, match="--control_seed 3 goes with --control_direction random"):
        interventions.chosen(ATTN, flags("--control_seed", "3"))


def test_vectors_are_scaled_layer_by_layer_and_a_layer_without_direction_keeps_none(file):
    unit = interventions.read_vectors(file, ATTN, flags("--scale", "unit"))
    torch.testing.assert_close(unit, torch.tensor([[0.0, 0.0], [0.6, 0.8], [0.0, 1.0]]))
    overall = interventions.read_vectors(file, ATTN, flags("--scale", "overall"))
    torch.testing.assert_close(overall, unit * NORMS[:, None])


def test_a_random_direction_has_the_norms_of_the_scaled_one(file):
    args = flags("--scale", "overall", "--control_direction", "random", "--control_seed", "1")
    found = interventions.read_vectors(file, ATTN, args)
    torch.testing.assert_close(found.norm(dim=-1), torch.tensor([0.0, 10.0, 1.0]))
    assert abs(torch.cosine_similarity(found[1], DIRECTION[1], dim=0)) < 0.999
    again = interventions.read_vectors(file, ATTN, args)
    assert torch.equal(again, found)


def test_one_layers_vector_is_scaled_before_it_is_used_everywhere(file):
    method = interventions.chosen(ATTN, args := flags("--from_layer", "1", "--scale", "unit"))
    found = interventions.read_vectors(file, method, args)
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8]] * 3))


@pytest.mark.parametrize("layer, said", [("3", "has layers 0 to 2"), ("0", "no vector for layer 0")])
def test_a_layer_that_has_no_vector_is_refused(file, layer, said):
    method = interventions.chosen(ATTN, args := flags("--from_layer", layer))
    with pytest.raises(InputError, match=said):
        interventions.read_vectors(file, method, args)


def test_a_file_without_norms_cannot_be_scaled_by_them(tmp_path):
    path = tmp_path / "imported.safetensors"
    store.write_safetensors(path, {"direction": DIRECTION}, {})
    with pytest.raises(InputError, match=r"imported\.safetensors holds no tensor `overall_norm`"):
        interventions.read_vectors(path, ATTN, flags("--scale", "overall"))


def test_a_run_says_how_to_apply_the_direction_so_again(file):
    plain = interventions.settings(ATTN, 3, flags())
    assert plain["control_seed"] is None and plain["from_layer"] == "own"
    said = ["--operation", "amplify", "--site", "block_in", "mlp_out", "--tokens", "response", "--from_layer", "1"]
    said += ["--scale", "unit", "--control_direction", "random", "--control_seed", "0"]
    for args in (flags(), flags(*said)):
        method = interventions.chosen(ATTN, args)
        again = interventions.flags_of(json.loads(json.dumps(interventions.settings(method, 3, args))))
        restored = interventions.chosen(ATTN, again)
        assert (restored.operation, restored.sites, restored.where) == (method.operation, method.sites, method.where)
        same = interventions.read_vectors(file, restored, again)
        assert torch.equal(same, interventions.read_vectors(file, method, args))


def test_a_vector_many_times_as_long_as_the_activations_is_named(file):
    def warned(coef, layers=(1, 2), *said):
        method = interventions.chosen(ATTN, args := flags(*said))
        return interventions.warning(
            file, method.edits(interventions.read_vectors(file, method, args), layers, coef, EVERYWHERE)
        )

    assert warned(0.4) is None and warned(-5.0) is None and warned(0.0) is None
    assert "layer 2 is 12 times as long as the mean activation" in warned(6.0)
    assert "layer 2 is 600 times" in warned(-300.0)
    assert warned(6.0, (1,)) is None and "layer 1 is 30 times" in warned(60.0, (1,))
    assert warned(60.0, (0,)) is None  # where the direction has no vector
    assert "layer 1 is 11 times" in warned(11.0, (1,), "--scale", "overall")
    assert "layer 2 is 11 times" in warned(5.5, (1, 2), "--control_direction", "random")
    assert warned(300.0, (1,), "--operation", "amplify") is None


def test_norms_of_zero_are_exceeded_and_a_file_without_norms_gives_no_warning(tmp_path):
    edits = ATTN.edits(DIRECTION, (1,), 0.1, EVERYWHERE)
    path = tmp_path / "direction.safetensors"
    store.write_safetensors(path, {"direction": DIRECTION, "overall_norm": 0 * NORMS}, {})
    assert "layer 1" in interventions.warning(path, edits)
    assert interventions.warning(path, []) is None
    store.write_safetensors(path, {"direction": DIRECTION}, {})
    assert interventions.warning(path, ATTN.edits(DIRECTION, (1,), 6e4, EVERYWHERE)) is None
