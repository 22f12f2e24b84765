"""The proof that steering acts, on a toy in the place of vLLM."""

import pytest
import torch

from thinksteer.directions import unit
from thinksteer.engines.vllm_trial import distance, prove
from thinksteer.records import EVERYWHERE, Condition, InputError
from thinksteer.steering import Change

HIDDEN, PROMPT = 8, [3, 4]
NO_ROWS = torch.zeros(0, HIDDEN, dtype=torch.float64)


class Toy:
    """Three greedy tokens by the last state, and a little by those before; to each is added what steers there: where a
    prompt is read, where tokens are decoded, in both or in none."""

    def __init__(self, prompts: bool = True, decoded: bool = True, offset: float = 0.0):
        generator = torch.Generator().manual_seed(1)
        self.states = torch.randn(20, HIDDEN, generator=generator, dtype=torch.float64)
        self.head = torch.randn(20, HIDDEN, generator=generator, dtype=torch.float64)
        self.prompts, self.decoded, self.offset = prompts, decoded, offset
        self.asked = []

    def steer(self, wanted):
        self.asked.append(wanted)
        self.changes = [(where, change) for parts in wanted.values() for where, change in parts.items()]

    def sample(self, ids):
        tokens, steps = [], []
        for _ in range(3):
            read = [*ids, *tokens]
            states = [
                self.state(token, self.prompts if at < len(ids) else self.decoded) for at, token in enumerate(read)
            ]
            scores = (self.head @ unit(states[-1] + 0.01 * sum(states[:-1]))).log_softmax(-1)
            tokens.append(int(scores.argmax()))
            steps.append(dict(enumerate(scores.tolist())))
        return tokens, steps

    def state(self, token, steered):
        held = [one for where, one in self.changes if steered and (where == EVERYWHERE or token in where.tokens)]
        return self.states[token] + sum(one.added + self.offset for one in held)


def wanted(where=EVERYWHERE):
    return {(1, "attn_out"): {where: Change(torch.ones(HIDDEN, dtype=torch.float64), NO_ROWS, NO_ROWS)}}


@pytest.mark.parametrize("where", [EVERYWHERE, Condition(frozenset([7]))])
def test_steering_that_acts_passes_and_ends_unsteered(where):
    toy = Toy()
    prove(wanted(where), PROMPT, HIDDEN, toy.steer, toy.sample)
    assert toy.asked[0] == toy.asked[-1] == {} and len(toy.asked) == 4
    assert all((1, "attn_out") in one for one in toy.asked[1:3])


@pytest.mark.parametrize("prompts, decoded", [(False, False), (True, False), (False, True)])
def test_steering_that_does_nothing_or_acts_in_prompts_alone_or_in_decoded_steps_alone_is_an_error(prompts, decoded):
    toy = Toy(prompts, decoded)
    with pytest.raises(InputError, match="steering does not reach the steps that vLLM decodes"):
        prove(wanted(), PROMPT, HIDDEN, toy.steer, toy.sample)


def test_weight_0_that_changes_the_tokens_is_an_error():
    toy = Toy(offset=5.0)
    with pytest.raises(InputError, match="weight 0 changes the tokens"):
        prove(wanted(), PROMPT, HIDDEN, toy.steer, toy.sample)


def test_the_distance_is_of_the_likeliest_tokens_and_what_is_not_listed_counts_as_the_last():
    assert distance({1: -0.1, 2: -3.0}, {1: -0.4, 2: -2.0}) == pytest.approx(0.3)
    assert distance({1: -0.1, 2: -3.0}, {5: -0.2, 6: -2.0}) == pytest.approx(2.8)  # 5 against 2's -3.0
