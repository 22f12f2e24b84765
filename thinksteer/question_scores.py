"""Whether a question asks for reasoning or for memory: scores like LiReFs' `memory_reason_score`, in [0, 1].

LiReFs published theirs with 3000 questions of MMLU-Pro. Where that file is not at hand, `rule_score` reads the surface
of a question, and `PROMPT` asks any language model. `agreement` says how far one is to be trusted.

The rule against 200 random questions of that sample (tests/mmlu_pro_scores_200.json), which a language model had scored
by `PROMPT`'s scale, from the question and its first options: 0.92 [0.87, 0.95] are of the same kind, Cohen's kappa is
0.84 [0.76, 0.91], the AUC 0.97. Nothing was fitted to them, but the same model wrote the rule after reading them; how
LiReFs' own scores agree with either is not known.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thinksteer.agreement import OVERALL, Agreement, kappas
from thinksteer.intervals import Estimate, mean
from thinksteer.mmlu_pro import LETTERS, kind

PROMPT = """How much does it take reasoning to answer the question below, and how much is it a matter of memory?

0: memory alone. One knows the name, the date, the term, the definition or the finding, or one does not.
1: reasoning alone. The answer is calculated or deduced, in several steps, from what the question states.

In between where both are needed: towards 0 where the steps are few and what one has to know decides, towards 1 where \
what one has to know is common and the steps decide. Answer with nothing but a number from 0 to 1, such as 0.35.

Category: {category}
Question: {question}
Options:
{options}"""

# Weights of the rule's signs: log-odds of reasoning, chosen by hand.
BIAS = -1.5
CATEGORY = {
    **dict.fromkeys(("math", "physics", "chemistry", "engineering"), 1.0),
    **dict.fromkeys(("business", "economics", "computer science"), 0.0),
    "law": 0.5,
}
OTHER_CATEGORY = -1.0
SIGNS = (
    # what is asked for has to be worked out
    (1.5, re.compile(r"\b(?:calculate|comput|evaluat|solve|simplif|estimate|derive|prove|convert)\w*", re.I)),
    (1.0, re.compile(r"\b(?:find|determine|express)\b|\bhow (?:much|many|long|far|fast)\b|\bwhat will\b", re.I)),
    # a case to be judged, by its facts
    (0.7, re.compile(r"\b(?:if|suppose|assume|given|consider)\b", re.I)),
    (0.7, re.compile(r"\b(?:defendant|plaintiff|man|woman|boy|girl)\b.*\b(?:most likely|best|should)\b", re.I | re.S)),
    (1.0, re.compile(r"\\(?:frac|int|sum|sqrt|begin)|[=<>^]|\bx\b.*\by\b")),
    # a name, a term, a view that somebody holds
    (-1.5, re.compile(r"\b(?:known|referred to|called|defined?|term|stands? for|meant by|means)\b", re.I)),
    (-1.0, re.compile(r"^who\b|\baccording to\b|\bargu(?:es?|ed)\b|\bauthor\b|\btheory\b|\bassociated with\b", re.I)),
)
READ_CHARACTERS = 10_000  # of a question; the time that some signs take grows with the square
FIGURE = re.compile(r"\d+(?:[.,]\d+)*")
FIGURES, MOST_FIGURES = 0.5, 4  # of each figure in the question, of so many at most
NUMERIC_OPTIONS = 2.5  # times the share of options that are mostly figures and formulas


def rule_score(question: str, options: Sequence[str], category: str) -> float:
    """The logistic function of the sum of the weights of the signs that are there; looks at no answer."""
    from scipy.special import expit

    numeric = sum(_numeric(option) for option in options) / len(options)
    total = BIAS + CATEGORY.get(category, OTHER_CATEGORY) + NUMERIC_OPTIONS * numeric
    read = question[:READ_CHARACTERS]
    total += FIGURES * min(MOST_FIGURES, len(FIGURE.findall(read)))
    total += sum(weight for weight, sign in SIGNS if sign.search(read))
    return round(float(expit(total)), 3)


def _numeric(option: str) -> bool:
    """Whether no more than two words of three letters stand beside a figure."""
    return bool(re.search(r"\d", option)) and len(re.findall(r"[A-Za-z]{3,}", re.sub(r"\\\w+", "", option))) <= 2


def prompt(question: str, options: Sequence[str], category: str) -> str:
    listed = "\n".join(f"({letter}): {option}" for letter, option in zip(LETTERS, options, strict=False))
    return PROMPT.format(question=question, options=listed, category=category)


def answered_score(answer: str) -> float | None:
    """The one number that an answer to `prompt` holds after its thinking; None if there are more, none, or beyond."""
    found = re.findall(r"-?\d*\.?\d+", answer.rpartition("</think>")[2])
    return float(found[0]) if len(found) == 1 and 0 <= float(found[0]) <= 1 else None


@dataclass(frozen=True)
class Trust:
    """How far scores agree with others on `n` questions: the share of the same kind ("reasoning", "memory"), Cohen's
    kappa of the kinds (None: only one kind), and the AUC, the chance that of two questions of different kind by the
    others the reasoning one has the higher score (None likewise)."""

    n: int
    accuracy: Estimate
    kappa: Estimate | None
    auc: float | None


def agreement(ids: Sequence[str], scores: Sequence[float], others: Sequence[float]) -> Trust:
    """Of the scores of these questions with those that others gave them."""
    from scipy.stats import mannwhitneyu

    values, reasoning = np.asarray(scores), np.asarray([kind(other) == "reasoning" for other in others])
    said = np.asarray([kind(score) == "reasoning" for score in scores])
    counts = np.zeros((len(ids), 2, 2))
    np.add.at(counts, (np.arange(len(ids)), said.astype(int), reasoning.astype(int)), 1)
    high, low = values[reasoning], values[~reasoning]
    auc = float(mannwhitneyu(high, low).statistic / (len(high) * len(low))) if len(high) and len(low) else None
    kappa = kappas(Agreement(("memory", "reasoning"), tuple(ids), counts))[OVERALL]
    return Trust(len(ids), mean(ids, said == reasoning, (0, 1)), kappa, auc)
