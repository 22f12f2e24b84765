"""Evaluations that look like real ones, written as stage 6 writes them: to measure what reading and comparing costs."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from thinksteer import store
from thinksteer.comparison import Role
from thinksteer.records import Record

DATASETS = ("gsm8k", "mmlu_elementary_math", "MATH-500", "MATH-level1", "MATH-level5")
MODELS: dict[str, Role] = {"base": "base"}
MODELS |= {f"edited-{number}": "edited" for number in range(1, 5)}
MODELS |= {f"random-{number}": "control" for number in range(1, 4)}
N_SAMPLES, BUDGET = 10, 4096

SENTENCES = (  # about 28 tokens each; half of all responses stay in ASCII
    "First, {name} starts with {a} {thing}, so after giving away {b} of them there are {a} - {b} = {c} left.",
    "Wait, let me check that again: {a} {times} {b} is not {c}, as half of {a} would already be more than that.\n\n",
    "Okay, so {name} buys {a} {thing} at ${b} each on {day}, which makes {a} * {b} = {c} dollars in total.",
    "Hmm, the question asks how many {thing} are left in the end, not how many {name} had on {day}.\n\n",
    "Then on {day} there are {b} more {thing} than before, which gives {c}, as {name} said in the beginning.",
    "So if {a}% of the {thing} are gone, the rest is {b}, and {b} / {a} = {c}, which has to be rounded.",
    "Alternatively, I could set up an equation: let x be the number of {thing}, then {a}x + {b} = {c}.\n\n",
    "Therefore, {name} needs {c} {thing} altogether, and {a} of them have to come from what {b} friends bring.",
    "That seems right, but let me make sure that I did not miss the {a} {thing} that {name} had from {day}.",
    "Each of the {a} friends gets {b} {thing}, and {c} remain; nobody gets anything more before {day}.\n\n",
)
NAMES = ("Natalia", "Weng", "Betty", "Julie", "James", "Mark", "Albert", "Ken", "Alexis", "Tina", "Tobias", "Randy")
THINGS = ("clips", "pages", "flowers", "slices", "pounds", "lego sets", "eggs", "feet of fence", "minutes", "sprints")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
POOL, SENTENCE_TOKENS = 8000, 28


def write(root: Path, n_questions: int) -> int:
    """Every model on every data set, ten samples a question; edit.json says which are edits and which controls.
    Returns the bytes of the records."""
    pool, size = sentences(), 0
    for model, role in MODELS.items():
        if role != "base":
            edit = {"base_model": "base", "control_heads": "random" if role == "control" else None}
            path = store.model_path(root, model) / "edit.json"
            store.write_json(path, edit | {"edited_heads": [[0, 0]] * 20, "intervention_weight": 1.0})
        for dataset in DATASETS:
            path = store.evaluation_path(root, model, dataset, "")
            with store.run(path, {"max_length": BUDGET, "seed": 0}, [], overwrite=False), store.RecordLog(path) as log:
                for record in records(model, dataset, n_questions, pool):
                    log.append(record)
            size += path.stat().st_size
    return size


def sentences() -> list[str]:
    rng = random.Random(0)
    return [
        rng.choice(SENTENCES).format(
            a=rng.randrange(2, 200),
            b=rng.randrange(2, 60),
            c=rng.randrange(2, 12000),
            name=rng.choice(NAMES),
            thing=rng.choice(THINGS),
            day=rng.choice(DAYS),
            times=rng.choice(("*", "*", "×", "≈")),
        )
        for _ in range(POOL)
    ]


def records(model: str, dataset: str, n_questions: int, pool: list[str]) -> Iterator[Record]:
    """Some 480 tokens of thinking in the mean (log-normal); 1 % loop until they are cut, 1 % do not think. Questions
    differ in ease, and short thinking costs a fifth of the right answers."""
    rng = random.Random(f"{model} {dataset}")
    ids = tuple(rng.randrange(150_000) for _ in range(POOL + BUDGET))
    for number in range(n_questions):
        of_question = random.Random(f"{dataset} {number}")
        ease, asked = of_question.betavariate(5, 1), " ".join(of_question.choices(pool, k=3))
        reference = str(of_question.randrange(1000))
        for sample in range(N_SAMPLES):
            at, kind = rng.randrange(POOL - BUDGET // SENTENCE_TOKENS), rng.random()
            thinking = min(BUDGET - 300, int(rng.lognormvariate(6.0, 0.6)))
            right = rng.random() < ease * (0.8 if thinking < 200 else 1)
            chain, answer = pool[at : at + thinking // SENTENCE_TOKENS], pool[at : at + 4]
            tokens = thinking + SENTENCE_TOKENS * len(answer)
            prediction = reference if right else str(at)
            one = Record(
                id=f"{dataset}-test-{number}",
                sample=sample,
                question=asked,
                reference=reference,
                kind="math",
                prompt=f"<｜begin▁of▁sentence｜><｜User｜>{asked}<｜Assistant｜><think>\n",
                response=f"{' '.join(chain)}\n</think>\n\n{' '.join(answer)}\n\n\\boxed{{{prediction}}}",
                token_ids=ids[at : at + tokens],
                thinking_tokens=thinking,
                response_tokens=tokens,
                status="closed",
                finish_reason="stop",
                forced_at=None,
                seed=rng.getrandbits(63),
                prediction=prediction,
                correct=right,
            )
            if kind < 0.01:
                loop = {"response": " ".join(pool[at : at + 2] * (BUDGET // SENTENCE_TOKENS // 2)), "correct": False}
                cut = {"status": "capped", "finish_reason": "length", "response_tokens": BUDGET, "prediction": None}
                one = replace(one, thinking_tokens=None, token_ids=ids[:BUDGET], **loop, **cut)
            elif kind < 0.02:
                text = one.response.partition("</think>\n\n")[2]
                short = {"thinking_tokens": None, "response_tokens": 112, "token_ids": ids[:112]}
                one = replace(one, response=text, status="no_think", **short)
            yield one
