import pytest
import torch

from thinksteer.directions import cosine, mean_difference, random_like, unit
from thinksteer.records import InputError


def test_the_direction_points_from_the_negative_to_the_positive_mean():
    difference = mean_difference(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 4.0]]))
    assert difference.tolist() == [[2.0, -3.0]]


def test_class_means_of_different_shapes_are_refused_with_both_shapes():
    with pytest.raises(InputError, match=r"\(2, 3\).*\(2, 4\)"):
        mean_difference(torch.zeros(2, 3), torch.zeros(2, 4))


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
