"""Sampling against plain formulas."""

import random

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from thinksteer.engines.sampling import (
    CARRIED,
    NEUTRAL,
    choose,
    forbidden,
    native,
    not_carried,
    processed,
    sampling_from,
    uniforms,
)
from thinksteer.records import InputError, Sampling

VOCABULARY, DRAWS = 40, 20000


def sampling(**settings) -> Sampling:
    return Sampling(**{"max_tokens": 8, "temperature": 1.0, "top_p": 1.0, "top_k": 0, **settings})


def shares(logits: torch.Tensor, rule: Sampling) -> torch.Tensor:
    """How often each token is drawn, each draw from a record of its own."""
    draws = uniforms(range(DRAWS), [3] * DRAWS)
    tokens = choose(logits.expand(DRAWS, -1), draws, [[0]] * DRAWS, [0] * DRAWS, rule)
    return torch.bincount(tokens, minlength=VOCABULARY) / DRAWS


def distance(shares: torch.Tensor, expected: torch.Tensor) -> float:
    """Chi-square over its degrees of freedom: about 1 if the draws follow `expected`."""
    possible = expected > 0
    assert not shares[~possible].any(), "a token was drawn that cannot be"
    chi_square = (DRAWS * (shares - expected)[possible] ** 2 / expected[possible]).sum()
    return float(chi_square / max(1, int(possible.sum()) - 1))


@pytest.fixture
def logits() -> torch.Tensor:
    return 1.5 * torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_draws_follow_the_softmax_at_the_temperature(logits):
    expected = torch.softmax(logits / 0.7, -1)
    assert distance(shares(logits, sampling(temperature=0.7)), expected) < 1.6
    assert distance(shares(logits, sampling(temperature=0.8)), expected) > 3  # the test would notice


def test_top_k_keeps_the_k_likeliest(logits):
    kept = torch.zeros(VOCABULARY, dtype=torch.bool)
    kept[logits.argsort(descending=True)[:5]] = True
    expected = torch.softmax(logits.masked_fill(~kept, -torch.inf), -1)
    assert distance(shares(logits, sampling(top_k=5)), expected) < 2.5


@pytest.mark.parametrize("top_p", [0.05, 0.6, 0.95])
def test_top_p_keeps_the_fewest_tokens_that_reach_it(logits, top_p):
    probabilities, kept, mass = torch.softmax(logits, -1), [], 0.0
    for token in logits.argsort(descending=True).tolist():
        if mass >= top_p:
            break
        kept.append(token)
        mass += float(probabilities[token])
    expected = torch.zeros_like(probabilities)
    expected[kept] = probabilities[kept] / probabilities[kept].sum()
    assert distance(shares(logits, sampling(top_p=top_p)), expected) < 2.5


def test_top_p_finds_its_tokens_beyond_the_first_heads():
    logits = torch.zeros(1, 3000, dtype=torch.float64)
    logits[0, 2000:] = -1.0
    wanted = (2000 + 500 * np.exp(-1)) / (2000 + 1000 * np.exp(-1))  # inside the second level
    drawn = {int(choose(logits, np.array([u]), [[0]], [0], sampling(top_p=wanted))) for u in np.linspace(0, 0.999, 40)}
    assert max(drawn) > 2900  # the ties of the second level stay together
    drawn = {int(choose(logits, np.array([u]), [[0]], [0], sampling(top_p=0.5))) for u in np.linspace(0, 0.999, 40)}
    assert max(drawn) < 2000


def test_top_p_counts_what_top_k_left(logits):
    """As in transformers and vLLM: the share is of the mass that top_k kept."""
    order = logits.argsort(descending=True)
    kept = torch.softmax(logits[order[:4]], -1)
    count = int((kept.cumsum(-1) - kept < 0.5).sum())
    assert count < 3
    drawn = shares(logits, sampling(top_k=4, top_p=0.5)).nonzero()[:, 0]
    assert set(drawn.tolist()) == set(order[:count].tolist())


def test_a_repetition_penalty_divides_positive_and_multiplies_negative_logits():
    logits = torch.tensor([[2.0, -1.0, 1.5, -1.1]])
    assert choose(logits, np.zeros(1), [[0, 0]], [0], sampling(temperature=0, repetition_penalty=1.5)).item() == 2
    only_negative = torch.tensor([[-1.0, -1.1]])
    assert choose(only_negative, np.zeros(1), [[0]], [0], sampling(temperature=0, repetition_penalty=1.5)).item() == 1
    two = torch.tensor([[2.0, 1.9], [2.0, 1.9]])  # rows of different length: only their own tokens count
    assert choose(
        two, np.zeros(2), [[1], [0, 0, 0]], [0, 0], sampling(temperature=0, repetition_penalty=2.0)
    ).tolist() == [
        0,
        1,
    ]


def test_the_same_uniform_draws_the_same_token_of_nearly_equal_models(logits):
    draws = uniforms(range(2000), [0] * 2000)
    near = logits + 1e-3 * torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    first, second = (
        choose(row.expand(2000, -1), draws, [[0]] * 2000, [0] * 2000, sampling()) for row in (logits, near)
    )
    assert (first == second).double().mean() > 0.98


def test_uniforms_are_uniform_and_unrelated_between_seeds_and_counters():
    seeds, counters = np.meshgrid(np.arange(300), np.arange(300), indexing="ij")
    numbers = uniforms(seeds.ravel().tolist(), counters.ravel().tolist())
    assert numbers.min() >= 0 and numbers.max() < 1
    counts = np.histogram(numbers, 100, (0, 1))[0]
    assert ((counts - 900) ** 2 / 900).sum() / 99 < 1.4
    table = numbers.reshape(300, 300) - 0.5
    neighbours = [
        (table[1:] * table[:-1]).mean(),
        (table[:, 1:] * table[:, :-1]).mean(),
        (table[1:, :-1] * table[:-1, 1:]).mean(),
    ]
    assert max(map(abs, neighbours)) < 4 / 12 / 300  # four standard errors
    assert len(np.unique(numbers)) == numbers.size


def test_a_seed_of_any_size_is_one_modulo_two_to_the_64():
    assert uniforms([-1], [5]) == uniforms([2**64 - 1], [5])


def test_logits_that_are_not_finite_are_an_error():
    for value in (torch.nan, torch.inf):
        broken = torch.tensor([[0.0, 1.0], [0.0, value]])
        for rule in (sampling(temperature=0.0), sampling(), sampling(top_p=0.9), sampling(top_k=1)):
            with pytest.raises(InputError, match="not finite"):
                choose(broken, np.zeros(2), [[0]] * 2, [0] * 2, rule)
    allowed = torch.tensor([[0.0, -torch.inf]])
    assert choose(allowed, np.full(1, 0.99), [[0]], [0], sampling(top_p=0.9)).tolist() == [0]


@pytest.mark.parametrize("value", ["hot", True, torch.nan, -1.0, [0.6]])
def test_a_generation_config_that_states_no_number_is_named(value):
    with pytest.raises(InputError, match=r"temperature is .*; it must be 0 .*generation_config\.json"):
        sampling_from({"temperature": value}, 9)
    assert sampling_from({"temperature": None, "top_k": None}, 9) == Sampling(9, 1.0, 1.0, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"min_p": value} for value in (1.5, -0.1, "0.1", True, [0.1])),
        *({"presence_penalty": value} for value in (2.5, "high", torch.inf)),
        {"frequency_penalty": -2.5},
        *({"no_repeat_ngram_size": value} for value in (-1, 2.5, "3", False)),
        *({"min_new_tokens": value} for value in (-1, 1.0)),
        *({"suppress_tokens": value} for value in (5, "5", [-1], [1.0], [True], [[5]], {"5": 1})),
        {"begin_suppress_tokens": [None]},
        *({"bad_words_ids": value} for value in ([5], [[]], [[5], "6"], [[-5]], [[[5]]])),
        {"top_k": 50.5},
        {"do_sample": "false"},
    ],
    ids=str,
)
def test_what_a_generation_config_states_wrongly_is_named_in_one_line(wrong):
    (name,) = wrong
    with pytest.raises(InputError) as caught:
        sampling_from(wrong, 9)
    message = str(caught.value)
    assert message.startswith(f"{name} is ") and "it must be" in message and message.endswith("generation_config.json")
    assert "\n" not in message


def test_what_the_generation_config_states_is_carried():
    stated = {"min_p": 0.1, "presence_penalty": 1, "frequency_penalty": -0.5, "no_repeat_ngram_size": 3}
    ids = {"suppress_tokens": [4, 5], "begin_suppress_tokens": [6], "bad_words_ids": [[7, 8], [9]], "min_new_tokens": 2}
    found = sampling_from(stated | ids, 9)
    assert {name: getattr(found, name) for name in stated} == stated
    assert (found.suppress_tokens, found.begin_suppress_tokens, found.min_new_tokens) == ((4, 5), (6,), 2)
    assert found.bad_words_ids == ((7, 8), (9,))
    assert (stated | ids).keys() == {*CARRIED} and not not_carried(stated | ids)


def test_what_is_not_carried_is_named_unless_it_is_off():
    on = {"num_beams": 4, "typical_p": 0.9, "guidance_scale": 0, "stop_strings": ["x"], "forced_bos_token_id": 0}
    assert not_carried(on | {"temperature": 0.6, "eos_token_id": 5}) == on
    off = {"num_beams": 1, "typical_p": 1.0, "guidance_scale": 1, "stop_strings": None, "forced_eos_token_id": None}
    off |= {"min_length": 0, "epsilon_cutoff": 0.0, "sequence_bias": [], "token_healing": False}
    assert not_carried(off) == {}
    assert not_carried({"mirostat": 2}) == {"mirostat": 2}, "nor does anyone know what it does"
    assert not_carried(GenerationConfig._get_default_generation_params()) == {}


def test_every_setting_of_transformers_is_carried_or_neutral_or_named():
    """One that a new version adds must be decided on."""
    named = {
        *("sequence_bias", "encoder_repetition_penalty", "encoder_no_repeat_ngram_size", "guidance_scale"),
        *("exponential_decay_length_penalty", "forced_bos_token_id", "forced_eos_token_id", "min_length"),
        *("typical_p", "epsilon_cutoff", "eta_cutoff", "top_h", "watermarking_config", "token_healing"),
        *("num_beams", "constraints", "force_words_ids", "penalty_alpha", "dola_layers", "max_time", "stop_strings"),
    }
    assert vars(GenerationConfig()).keys() - NEUTRAL == named


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({}, True),
        ({"min_p": 0.1}, True),
        ({"min_p": 0.1, "top_k": 5, "repetition_penalty": 1.1}, True),
        ({"min_p": 0.1, "top_p": 0.9}, False),
        ({"min_p": 0.1, "top_p": 0.9, "temperature": 0.0}, True),
        ({"presence_penalty": 0.1}, False),
        ({"suppress_tokens": (5,)}, False),
    ],
    ids=str,
)
def test_what_vllm_does_itself(settings, expected):
    assert native(sampling(**settings)) is expected


def test_min_p_is_a_share_of_the_likeliest(logits):
    probabilities = torch.softmax(logits / 0.8, -1)
    kept = probabilities.where(probabilities >= 0.2 * probabilities.max(), 0)
    assert 1 < kept.count_nonzero() < 20
    assert distance(shares(logits, sampling(temperature=0.8, min_p=0.2)), kept / kept.sum()) < 2
    assert distance(shares(logits, sampling(temperature=0.8, min_p=0.0)), probabilities) < 1.6


def test_penalties_of_the_response_leave_the_prompt_out():
    """Two times token 0, one time token 1 in the response; token 2 in the prompt alone."""
    logits, ids = torch.zeros(1, 4), [[2, 2, 2, 0, 1, 0]]
    found = processed(logits, ids, [3], sampling(presence_penalty=0.5, frequency_penalty=0.25))
    assert found.tolist() == [[-1.0, -0.75, 0.0, 0.0]] and not logits.any()
    assert processed(logits, ids, [0], sampling(presence_penalty=0.5)).tolist() == [[0.0] * 4]


def test_what_may_follow_is_what_a_plain_search_allows():
    """Runs and bad words in random sequences of few tokens, against reading them all."""
    rng = random.Random(2)
    for _ in range(300):
        ids, size = [rng.randrange(4) for _ in range(rng.randint(1, 30))], rng.randint(1, 6)
        words = [[rng.randrange(4) for _ in range(rng.randint(1, 3))] for _ in range(3)]
        rule = sampling(no_repeat_ngram_size=size, bad_words_ids=tuple(map(tuple, words)), eos_ids=frozenset({3}))
        runs = [ids[at : at + size] for at in range(len(ids) - size + 1)]
        expected = {
            token
            for token in range(4)
            if (len(ids) >= size and [*ids, token][-size:] in runs)
            or any([*ids, token][-len(word) :] == word for word in words if word != [3])
        }
        assert forbidden(ids, 1, rule) == expected, (ids, size, words)


def test_what_the_generation_config_leaves_out_is_off():
    assert sampling_from({"temperature": 0.6, "top_p": 0.95}, 9) == Sampling(9, 0.6, 0.95, 0)
    assert sampling_from({}, 9) == Sampling(9, 1.0, 1.0, 0)


def test_what_the_generation_config_states_counts_and_flags_override_it():
    config = {"do_sample": True, "temperature": 0.7, "top_k": 50, "repetition_penalty": 1.05}
    assert sampling_from(config, 9) == Sampling(9, 0.7, 1.0, 50, 1.05)
    assert sampling_from(config, 9, temperature=0.0, top_k=0).top_k == 0
    assert sampling_from(config, 9, temperature=0.0).temperature == 0
    assert sampling_from({"do_sample": False}, 9).temperature == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"repetition_penalty": 0.0},
    ],
)
def test_parameters_out_of_range_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        sampling_from({}, 9, **wrong)
