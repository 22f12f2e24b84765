"""Records with planted accuracy and length, for the tests of the analysis and of its pages."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from thinksteer.records import Record, Status
from thinksteer.thinking import Marks


class CharacterBytes(dict[int, bytes]):
    """The bytes of the tokens of a vocabulary in which the id of each character is its code point."""

    def __missing__(self, token: int) -> bytes:
        return chr(token).encode()


def character_marks(opening: str, closing: str) -> Marks:
    return Marks(opening.encode(), closing.encode(), CharacterBytes())


def marks_of(texts: Sequence[str], opening: str, closing: str) -> Marks:
    """Those of a vocabulary with these texts; any other id is a question mark."""
    return Marks(opening.encode(), closing.encode(), defaultdict(lambda: b"?", enumerate(map(str.encode, texts))))


def record(
    id: str,
    sample: int = 0,
    length: int | None = 100,
    correct: bool = True,
    status: Status = "closed",
    response: str = "<think>\nok\n</think>\n\n\\boxed{1}",
) -> Record:
    """`length` is the thinking's if closed, else the whole response's; None: the model does not think."""
    status = "no_think" if length is None else status
    return Record(
        id=id,
        sample=sample,
        question=f"What is {id}?",
        reference="1",
        kind="math",
        prompt=f"What is {id}?",
        response=response,
        token_ids=(),
        thinking_tokens=length if status == "closed" else None,
        response_tokens=(length or 0) + (10 if status == "closed" else 0),
        status=status,
        finish_reason="length" if status == "capped" else "stop",
        forced_at=None,
        seed=0,
        prediction=None if status == "capped" else "1",
        correct=correct,
    )


def evaluation(
    seed: int, n_questions: int, n_samples: int, gain: float = 0.0, longer: int = 0, world: int = 0
) -> list[Record]:
    """Questions of differing ease, the same for one `world`; short thinking halves the chance of a right answer."""
    ease = np.random.default_rng(world).beta(4, 2, size=n_questions)
    rng = np.random.default_rng(seed + 1000)
    made = []
    for question in range(n_questions):
        for sample in range(n_samples):
            length = int(rng.integers(40, 400)) + longer
            chance = min(1.0, ease[question] * (0.5 if length < 120 else 1.0) + gain)
            made.append(record(f"q{question}", sample, length, bool(rng.random() < chance)))
    return made
