"""How far two annotators agree on what the characters of the same thinking are: Cohen's kappa, with intervals.

The unit is the character, white space aside, as annotators cut the text at different places; a character that an
annotator left out has the label `NONE`. Characters of one response depend on each other, so intervals are those of a
bootstrap over questions, as in `intervals`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from thinksteer.annotation import LABELS, Annotation
from thinksteer.intervals import Estimate, Floats, resamples
from thinksteer.records import InputError
from thinksteer.tables import Column, Table

NONE = "none"
OVERALL = "all labels"


@dataclass(frozen=True)
class Both:
    """The text of a response, where its thinking is (characters), and what two annotators made of it."""

    text: str
    start: int
    end: int
    first: Annotation
    second: Annotation


@dataclass(frozen=True, eq=False)
class Agreement:
    """`counts` `[R, K, K]`: in each response, the characters with label k of the first annotator and l of the second;
    `labels` `[K]`, `ids` `[R]` are the questions'."""

    labels: tuple[str, ...]
    ids: tuple[str, ...]
    counts: Floats


def compare(responses: Sequence[Both]) -> Agreement:
    """Count every character. InputError if there is none."""
    pairs = [_labels(both) for both in responses]
    found = {label for first, second in pairs for label in (*first, *second)}
    if not found:
        raise InputError("no response with thinking was annotated by both")
    labels = (*(label for label in LABELS if label in found), *sorted(found - {*LABELS, NONE}))
    labels += (NONE,) if NONE in found else ()
    place = {label: index for index, label in enumerate(labels)}
    counts = np.zeros((len(pairs), len(labels), len(labels)))
    for response, (first, second) in enumerate(pairs):
        np.add.at(counts[response], ([place[one] for one in first], [place[one] for one in second]), 1)
    return Agreement(labels, tuple(both.first.id for both in responses), counts)


def kappas(agreement: Agreement) -> dict[str, Estimate | None]:
    """Cohen's kappa of each label against the rest, and of `OVERALL`; None where neither annotator tells them apart.

    `n` counts responses. No interval where a single question gives nothing to resample.
    """
    names, question = np.unique(agreement.ids, return_inverse=True)
    counts = np.zeros((len(names), *agreement.counts.shape[1:]))  # [Q, K, K]
    np.add.at(counts, question, agreement.counts)
    drawn = np.tensordot(resamples(len(names)), counts, axes=1)  # [RESAMPLES, K, K]
    whole = np.concatenate([counts.sum(axis=0)[None], drawn])
    tables = {label: _against_rest(whole, index) for index, label in enumerate(agreement.labels)} | {OVERALL: whole}
    return {label: _estimate(_kappas(table), len(agreement.ids), len(names)) for label, table in tables.items()}


def table(name: str, agreement: Agreement, first: str, second: str, title: str) -> Table:
    columns = (
        Column("label", "text"),
        Column(f"{first}: share of characters, %", "share"),
        Column(f"{second}: share of characters, %", "share"),
        Column("agreed characters, %", "share"),
        Column("kappa", "rate"),
    )
    counts = agreement.counts.sum(axis=0)
    total, found = counts.sum(), kappas(agreement)
    rows = [
        (
            label,
            float(counts[index].sum() / total),
            float(counts[:, index].sum() / total),
            float((total - counts[index].sum() - counts[:, index].sum() + 2 * counts[index, index]) / total),
            found[label],
        )
        for index, label in enumerate(agreement.labels)
    ]
    rows.append((OVERALL, 1.0, 1.0, float(np.trace(counts) / total), found[OVERALL]))
    note = (
        f"{len(agreement.ids)} responses annotated by both, {total:.0f} characters of thinking, white space aside. "
        "A label's row tells it from all others. Cohen's kappa: 1 agreement, 0 what chance gives; with 95 % intervals "
        f"(bootstrap over questions). {NONE}: characters that an annotator left out."
    )
    return Table(name, title, columns, tuple(rows), note)


def _against_rest(counts: Floats, label: int) -> Floats:
    """Confusion matrices `[N, K, K]` -> `[N, 2, 2]`."""
    both, first, second = counts[:, label, label], counts[:, label].sum(axis=1), counts[:, :, label].sum(axis=1)
    rest = counts.sum(axis=(1, 2)) - first - second + both
    return np.stack([both, first - both, second - both, rest], axis=1).reshape(-1, 2, 2)


def _estimate(values: Floats, n: int, n_questions: int) -> Estimate | None:
    """From the value and those of its resamples, `[1 + RESAMPLES]`."""
    if np.isnan(values[0]):
        return None
    if n_questions == 1:
        return Estimate(float(values[0]), None, None, n)
    low, high = np.nanpercentile(values[1:], [2.5, 97.5])
    return Estimate(float(values[0]), float(low), float(high), n)


def _kappas(counts: Floats) -> Floats:
    """Cohen's kappa of confusion matrices `[N, K, K]`; NaN where chance alone gives full agreement."""
    shares = counts / counts.sum(axis=(1, 2), keepdims=True)
    agreed = np.trace(shares, axis1=1, axis2=2)
    chance = (shares.sum(axis=2) * shares.sum(axis=1)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance < 1 - 1e-12, (agreed - chance) / (1 - chance), np.nan)


def _labels(both: Both) -> tuple[list[str], list[str]]:
    """The label of each character of the thinking that is not white space, by either annotator."""
    solid = [place for place in range(both.start, both.end) if not both.text[place].isspace()]
    return _of(both.first, solid), _of(both.second, solid)


def _of(annotation: Annotation, places: Iterable[int]) -> list[str]:
    label = {place: one.label for one in annotation.sections for place in range(one.start, one.end)}
    return [label.get(place, NONE) for place in places]
