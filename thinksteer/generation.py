"""From problems to graded records through an engine: what generating, steering and evaluating have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from thinksteer.engines import Engine
from thinksteer.grading import Grader, shown
from thinksteer.records import Edit, Problem, Record, Request, Sampling
from thinksteer.thinking import Template, prompt_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def record_seed(seed: int, id: str, sample: int) -> int:
    """The seed of one sample of one question: the same whatever else is generated, shared by no other sample."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{sample}/{id}".encode()).digest()[:8], "big") >> 1


def requests(
    problems: Sequence[Problem],
    template: Template,
    tokenizer: PreTrainedTokenizerBase,
    instruction: str,
    n_samples: int,
    seed: int,
    done: Collection[tuple[str, int]],
) -> list[Request]:
    """A request for every sample of every problem whose (id, sample) is not `done`."""
    asked = []
    for problem in problems:
        prompt = template.prompt(problem.question, instruction)
        ids = prompt_ids(template, tokenizer, prompt)
        asked += [
            Request(problem.id, sample, prompt, ids, record_seed(seed, problem.id, sample))
            for sample in range(n_samples)
            if (problem.id, sample) not in done
        ]
    return asked


def records(
    engine: Engine,
    problems: Sequence[Problem],
    asked: Sequence[Request],
    sampling: Sampling,
    grader: Grader,
    edits: Sequence[Edit] = (),
) -> Iterator[Record]:
    """Graded records in the order in which the engine finishes them."""
    by_id = {problem.id: problem for problem in problems}
    for response in engine.generate(asked, sampling, edits):
        problem = by_id[response.id]
        graded = grader.grade(response.text, problem.answer, problem.kind)
        yield Record.from_response(response, problem, shown(problem.answer, problem.kind), graded)
