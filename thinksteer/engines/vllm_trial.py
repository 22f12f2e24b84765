"""Does steering act in vLLM? A hook under torch.compile, or a module of another name, does nothing and says nothing."""

from collections.abc import Callable

import torch

from thinksteer.directions import unit
from thinksteer.records import EVERYWHERE, Condition, InputError
from thinksteer.steering import Change, Changes

Distribution = dict[int, float]
"""Log-probabilities of the likeliest tokens."""
Sample = Callable[[list[int]], tuple[list[int], list[Distribution]]]
"""Three greedy tokens behind these, and the distribution at each."""


def prove(
    wanted: Changes, prompt: list[int], hidden_size: int, steer: Callable[[Changes], None], sample: Sample
) -> None:
    """InputError unless, where these changes would act, weight 0 changes nothing and a large one changes decoded steps.

    That the prompt is steered does not show that decoding is, so a decoded step is compared with the same step read as
    a prompt. `steer` replaces the steering; what is left is none.
    """
    steer({})
    plain, _ = sample(prompt)
    # A condition is tried where it can be seen: at the first token that is generated.
    trigger = Condition(frozenset(plain[:1]))
    noise = torch.randn(hidden_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def trial(weight: float) -> Changes:
        def one(change: Change) -> Change:
            rows = unit(noise)[None].expand_as(change.read)
            return Change(weight * noise, rows, weight * rows)

        return {
            place: {where if where == EVERYWHERE else trigger: one(change) for where, change in parts.items()}
            for place, parts in wanted.items()
        }

    steer(trial(0))
    zero, _ = sample(prompt)
    steer(trial(10))
    large, steps = sample(prompt)
    _, (as_prompt, *_) = sample(prompt + large[:2])
    steer({})
    _, (unsteered, *_) = sample(prompt + large[:2])
    if zero != plain:
        raise InputError(f"steering with weight 0 changes the tokens ({plain} to {zero}): use --engine hf")
    effect, error = distance(as_prompt, unsteered), distance(steps[2], as_prompt)
    if not effect > 10 * error:
        raise InputError(
            f"steering does not reach the steps that vLLM decodes: log-probabilities move by {effect:.1g} in a "
            f"prompt, and a decoded step is {error:.1g} off it; use --engine hf"
        )


def distance(one: Distribution, other: Distribution) -> float:
    """By how much the log-probability of either's likeliest token differs; what is not listed counts as the last."""
    likeliest = [max(step, key=step.__getitem__) for step in (one, other)]
    return max(abs(one.get(token, min(one.values())) - other.get(token, min(other.values()))) for token in likeliest)
