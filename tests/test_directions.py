import pytest
import torch

from thinksteer.directions import contrast, cosine, random_like, rescaled, unit
from thinksteer.records import InputError


def test_a_direction_points_from_the_negative_to_the_positive_mean():
    means = {"long": torch.tensor([[3.0, 1.0]]), "short": torch.tensor([[1.0, 4.0]])}
    found = contrast(means, {"long": 5, "short": 9}, {("long",): 1, ("short",): -1})
    assert found.tolist() == [[2.0, -3.0]]


def test_classes_of_one_term_are_pooled_so_that_each_example_weighs_the_same():
    generator = torch.Generator().manual_seed(0)
    states = {label: torch.randn(n, 2, 4, generator=generator).double() for label, n in (("a", 7), ("b", 2), ("c", 5))}
    means, counts = (
        {label: one.mean(0) for label, one in states.items()},
        {label: len(one) for label, one in states.items()},
    )
    pooled = contrast(means, counts, {("a",): 1, ("b", "c"): -1})
    torch.testing.assert_close(pooled, states["a"].mean(0) - torch.cat([states["b"], states["c"]]).mean(0))
    apart = contrast(means, counts, {("a",): 1, ("b",): -1, ("c",): -0.5})
    torch.testing.assert_close(apart, means["a"] - means["b"] - 0.5 * means["c"])


def test_class_means_of_different_shapes_are_refused_with_both_shapes():
    with pytest.raises(InputError, match=r"\(2, 3\).*\(2, 4\)"):
        contrast({"a": torch.zeros(2, 3), "b": torch.zeros(2, 4)}, {"a": 1, "b": 1}, {("a", "b"): 1})


def test_unit_vectors_keep_their_direction_and_have_length_one():
    vectors = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    units = unit(vectors)
    torch.testing.assert_close(units.norm(dim=-1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(units * vectors.norm(dim=-1, keepdim=True), vectors)


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_a_layer_without_a_direction_is_named(bad):
    vectors = torch.ones(3, 4)
    vectors[1] = bad
    with pytest.raises(InputError, match=r"row\(s\) \[1\]"):
        unit(vectors)


def test_random_directions_have_the_norms_of_the_real_one_and_are_otherwise_unrelated():
    direction = torch.randn(6, 4000, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 7)[:, None]
    control = random_like(direction, seed=3)
    torch.testing.assert_close(control.norm(dim=-1), direction.norm(dim=-1))
    # Cosines of independent vectors have standard deviation 1 / sqrt(4000) = 0.016.
    assert cosine(control, direction).abs().max() < 0.08
    assert (unit(control) @ unit(control).T - torch.eye(6)).abs().max() < 0.08
    assert control.dtype == direction.dtype


def test_random_directions_are_decided_by_their_seed():
    direction = torch.ones(2, 8)
    assert torch.equal(random_like(direction, 1), random_like(direction, 1))
    assert not torch.equal(random_like(direction, 1), random_like(direction, 2))


def test_cosine_is_taken_layer_by_layer():
    first = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    second = torch.tensor([[5.0, 0.0], [0.0, -1.0], [1.0, -1.0]])
    torch.testing.assert_close(cosine(first, second), torch.tensor([1.0, -1.0, 0.0]))


def test_a_rescaled_direction_has_the_other_ones_length_in_each_layer():
    direction, like = torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[0.0, 10.0], [1.0, 0.0]])
    assert rescaled(direction, like).tolist() == [[6.0, 8.0], [0.0, 1.0]]


def test_a_layer_without_a_vector_has_none_at_random():
    direction = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    found = random_like(direction, seed=0)
    assert found[0].norm().item() == pytest.approx(5) and not found[1].any()
