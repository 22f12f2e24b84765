"""Cosines of directions with each other and with tokens: against torch's own, planted tokens, and the script."""

import re
import sys

import pytest
import torch
from torch.nn.functional import cosine_similarity

from scripts import compare_directions
from thinksteer import models, store
from thinksteer.direction_figures import Chance, Nearness, nearness_figure, similarity_figure
from thinksteer.directions import cosines, nearest, random_like
from thinksteer.records import InputError


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cosines_of_every_pair_in_every_layer_are_those_of_torch():
    first, second = noise(3, 4, 7), noise(2, 4, 7, seed=1)
    expected = cosine_similarity(first[:, None], second[None], dim=-1).permute(2, 0, 1)
    assert cosines(first, second).shape == (4, 3, 2)
    torch.testing.assert_close(cosines(first, second), expected)
    first[1, 2] = 0
    found = cosines(first, second)
    assert found[2, 1].isnan().all() and found.isnan().sum() == 2


def test_nearest_rows_are_the_same_in_chunks_and_those_of_all_cosines():
    vectors, rows = noise(5, 16), noise(50, 16, seed=1) * torch.arange(1, 51)[:, None]
    every = cosine_similarity(vectors[:, None], rows[None], dim=-1)
    for chunk in (1, 7, 50, 100):  # some chunks are smaller than k
        values, indices = nearest(vectors, rows, 4, chunk)
        expected = every.topk(4)
        torch.testing.assert_close(values.double(), expected.values, atol=1e-6, rtol=0)
        assert torch.equal(indices, expected.indices)


def test_a_vector_along_a_row_finds_it_with_cosine_one_whatever_the_lengths_and_the_dtype():
    rows = noise(40, 12).bfloat16()
    rows[3], rows[5] = 0, 1000 * rows[7]  # a long row at another angle must not win
    values, indices = nearest(rows[[11, 33]].float() * torch.tensor([[1e-3], [50.0]]), rows, 2, chunk=9)
    assert indices[:, 0].tolist() == [11, 33] and (values[:, 1] < 0.99).all()
    torch.testing.assert_close(values[:, 0], torch.ones(2))
    values, indices = nearest(torch.ones(1, 2), torch.tensor([[-1.0, -1.0], [0.0, 0.0]]), 9)
    assert values[0].tolist() == pytest.approx([0, -1]) and indices.tolist() == [[1, 0]]  # a row of zeros has 0


def test_figures_are_drawn_of_one_direction_and_of_many(tmp_path):
    for count in (1, 12):
        names = [f"direction {index}" for index in range(count)]
        similarity_figure(names, torch.eye(count).tolist(), tmp_path / f"{count}.png")
        one = Nearness("embedding", {name: [0.1, 0.3] for name in names}, Chance(0.2, 0.1, 0.3))
        nearness_figure([one] * (1 + count % 2), tmp_path / f"{count}.tokens.png")
    assert len(list(tmp_path.glob("*.png"))) == 4


NEAR, LAYER = 321, 4
FLAGS = ("--n_tokens", "3")


def write(root, name, direction):
    store.write_safetensors(store.direction_path(root, "tiny-reasoner", name), {"direction": direction.float()}, {})


def read_row(matrix, index):
    return store.read_tensor(models.TINY_REASONER, compare_directions.MATRICES[matrix])[index].double()


@pytest.fixture
def root(tmp_path):
    """Two directions: of the one a layer is an unembedding row, of the other the opposite of an embedding row."""
    first, second = noise(6, 128), noise(6, 128, seed=1)
    first[LAYER] = 3 * read_row("unembedding", NEAR)
    second[LAYER + 1] = -read_row("embedding", NEAR + 1)
    write(tmp_path, "first", first)
    write(tmp_path, "second.onset", second)
    return tmp_path


@pytest.fixture
def run(root, monkeypatch, capsys):
    """The script with these flags: what it prints."""

    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["compare_directions", "--artifacts", str(root), *flags])
        compare_directions.main()
        return capsys.readouterr().out

    return run


def test_the_script_finds_the_tokens_that_directions_were_made_of(root, run):
    out = run(*FLAGS)
    path = root / "directions" / "tiny-reasoner" / "cosines.json"
    about = store.read_json(path)
    vectors = [store.read_direction(store.direction_path(root, "tiny-reasoner", name)) for name in about["directions"]]
    assert about["directions"] == ["first", "second.onset"] and about["tied"] is False
    expected = cosine_similarity(*(one.double() for one in vectors), dim=-1)
    assert [layer[0][1] for layer in about["layers"]] == pytest.approx(expected.tolist())
    assert about["mean"][1] == pytest.approx([expected.mean().item(), 1])

    token = models.load_tokenizer(models.resolve("tiny-reasoner", root)).decode([NEAR])
    places = about["matrices"]["unembedding"]["tokens"]["first"]
    best = places[LAYER]["nearest"]
    assert len(places) == 6 and places[LAYER]["layer"] == LAYER and len(best) == 3
    assert best[0] == {"id": NEAR, "token": token, "cosine": pytest.approx(1)} and best[1]["cosine"] < 0.9
    opposite = about["matrices"]["embedding"]["tokens"]["second.onset"][LAYER + 1]["opposite"]
    assert opposite[0]["id"] == NEAR + 1 and opposite[0]["cosine"] == pytest.approx(-1)
    assert opposite[0]["cosine"] < opposite[1]["cosine"] < opposite[2]["cosine"] < 0
    for index, (matrix, found) in enumerate(about["matrices"].items()):
        other = found["tokens"]["second.onset"][0]["nearest"][0]  # a direction at random itself
        real = cosine_similarity(vectors[1][0].double(), read_row(matrix, other["id"]), dim=0)
        assert other["cosine"] == pytest.approx(real.item(), abs=1e-6), index
        weights = store.read_tensor(models.TINY_REASONER, compare_directions.MATRICES[matrix])
        largest = cosine_similarity(random_like(torch.ones(100, 128), 0)[:, None], weights[None], dim=-1).amax(dim=1)
        assert found["random"]["mean"] == pytest.approx(largest.mean().item())
        inside = (largest > found["random"]["low"]) & (largest < found["random"]["high"])
        assert inside.sum() == 94  # of 100; the quantiles lie between the third and the fourth at either end
    assert f"unembedding at layer {LAYER};" in out and f"nearest  {token!r} 1.00" in out
    assert all(path.with_name(name).stat().st_size for name in ("cosines.png", "cosines_tokens.png"))

    before = path.stat().st_mtime_ns
    assert run(*FLAGS) == out and "embedding at layer 3;" in run(*FLAGS, "--layer", "3")
    assert path.stat().st_mtime_ns == before
    assert "directions/tiny-reasoner/first.safetensors" in store.read_json(store.manifest_path(path))["inputs"]
    with pytest.raises(InputError, match="--layer 6: the model's layers are 0 to 5"):
        run(*FLAGS, "--layer", "6")


def test_a_direction_that_is_missing_or_of_another_shape_is_named(root, run):
    write(root, "wide", noise(6, 64))
    write(root, "nothing", torch.zeros(6, 128))
    with pytest.raises(InputError, match=r"absent\.safetensors"):
        run(*FLAGS, "--direction", "first", "absent")
    for name in ("wide", "nothing"):
        with pytest.raises(
            InputError, match=rf"{name}\.safetensors is zero or of another model .* \[6, 128\]\): leave"
        ):
            run(*FLAGS, "--direction", "first", name)
    out = run(*FLAGS)
    assert "left out, zero or of another model: nothing, wide\n" in out and "2 second.onset" in out
    for name in ("first", "second.onset"):
        store.direction_path(root, "tiny-reasoner", name).unlink()
    with pytest.raises(InputError, match="holds no direction of the model"):
        run(*FLAGS)


def test_a_layer_without_a_vector_has_a_dash(root, run):
    first, third = (store.direction_path(root, "tiny-reasoner", name) for name in ("first", "third"))
    about = torch.arange(6)[:, None]
    write(root, "third", store.read_direction(first) * (about > 2) + noise(6, 128, seed=2) * (about == 2))
    write(root, "early", noise(6, 128, seed=3) * (about < 2))
    out = run(*FLAGS, "--direction", "first", "third", "early", "--layer", "0")
    found = store.read_json(third.with_name("cosines.json"))
    pairs = [layer[0][1] for layer in found["layers"]]
    assert pairs[:2] == [None, None] and pairs[3:] == pytest.approx([1, 1, 1]) and abs(pairs[2]) < 0.5
    assert found["mean"][0][1] == pytest.approx(sum(pairs[2:]) / 4) and found["mean"][1][2] is None
    places = found["matrices"]["unembedding"]["tokens"]
    assert places["third"][1] == {"layer": 1, "nearest": [], "opposite": []} and len(places["third"][2]["nearest"]) == 3
    assert places["third"][LAYER] == places["first"][LAYER] and places["early"][LAYER]["nearest"] == []
    assert re.search(r"2 third  +0\.\d\d +1\.00 +–\n", out) and re.search(r"third +nearest +–\n +opposite +–\n", out)


@pytest.mark.parametrize("stored_twice", [False, True])
def test_tied_embeddings_are_one_matrix_and_rows_of_no_token_are_left_out(root, run, stored_twice):
    place = root / "models" / "tiny-reasoner"
    place.mkdir(parents=True)
    for file in models.TINY_REASONER.glob("*.json"):
        (place / file.name).write_bytes(file.read_bytes())
    tensors, _ = store.read_safetensors(models.TINY_REASONER / "model.safetensors")
    rows = tensors.pop("lm_head.weight")
    padding = store.read_direction(store.direction_path(root, "tiny-reasoner", "first"))[:1]
    tensors["model.embed_tokens.weight"] = torch.cat([rows, padding])
    if stored_twice:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        store.write_json(place / "config.json", store.read_json(place / "config.json") | {"tie_word_embeddings": True})
    store.write_safetensors(place / "model.safetensors", tensors, {"format": "pt"})
    out = run(*FLAGS)
    about = store.read_json(root / "directions" / "tiny-reasoner" / "cosines.json")
    assert about["tied"] and list(about["matrices"]) == ["embedding"] and out.count("(tied)") == 1
    tokens = about["matrices"]["embedding"]["tokens"]["first"]
    assert tokens[LAYER]["nearest"][0]["id"] == NEAR and tokens[0]["nearest"][0]["id"] < len(rows)
