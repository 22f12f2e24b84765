"""Statistics of labelled spans against counts by hand, and the script that writes them."""

import csv
import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import marks_of, record

from thinksteer import store
from thinksteer.class_figures import usage_figure
from thinksteer.classes import label_all, labels_of, span_rows, table, usages
from thinksteer.methods import METHODS
from thinksteer.methods.seal import ThoughtRule
from thinksteer.records import InputError, Passage, Span
from thinksteer.tables import as_json
from thinksteer.thinking import Reader

ROOT = Path(__file__).parent.parent
ALL = ("--n_correct", 0, "--n_incorrect", 0)
READER = Reader(None, lambda ids: " ".join(map(str, ids)), None, marks_of((), "<think>", "</think>"))


def found(id, *spans, sample=0):
    return Passage(id, tuple(range(100, 150)), tuple(Span(*span) for span in spans), sample)


# Two samples of q1, one without a span; q2 and q3 of other levels; q4 has no level and no span.
RECORDS = [
    replace(record("q1", 0, correct=True), level="10 days"),
    replace(record("q1", 1, correct=False), level="10 days"),
    replace(record("q2", 0, correct=True), level="9 days"),
    replace(record("q3", 0, correct=False), level="9 days"),
    record("q4", 0, correct=False),
]
PASSAGES = [
    found("q1", ("execution", 5, 15), ("reflection", 16, 20), ("execution", 20, 26)),  # 16 of 20 tokens
    found("q2", ("execution", 5, 15)),
    found("q3", ("reflection", 3, 9), ("transition", 9, 11)),  # 6 and 2 of 8 tokens
]


def method(passages, limit=None):
    """SEAL, but with these passages, of which it looks at the first `limit` records only."""

    def chosen(records, rule, reader):
        asked = {(one.id, one.sample) for one in records[:limit]}
        return [passage for passage in passages if (passage.id, passage.sample) in asked]

    return replace(METHODS["seal"], passages=chosen)


def measured(records=RECORDS, passages=PASSAGES):
    responses = label_all(method(passages), records, ThoughtRule(), READER)
    return {(one.group, one.label): one for one in usages(responses, labels_of(METHODS["seal"], responses))}


def test_every_mean_is_the_count_by_hand_with_zeros_for_responses_without_spans():
    here = measured()
    execution = here["all", "execution"]
    assert execution.responses == 5
    assert execution.spans.value == 3 / 5 and execution.tokens.value == 26 / 5
    assert execution.span_tokens.value == pytest.approx(26 / 3) and execution.span_tokens.n == 3
    assert execution.share.value == pytest.approx((16 / 20 + 1 + 0) / 3) and execution.share.n == 3
    assert here["incorrect", "reflection"].spans.value == 1 / 3
    assert here["incorrect", "reflection"].share.value == 6 / 8
    assert here["correct", "reflection"].tokens.value == 4 / 2
    assert here["9 days", "transition"].span_tokens.value == 2
    assert here["10 days", "transition"].spans.value == 0 and here["10 days", "transition"].span_tokens is None


def test_responses_are_grouped_by_verdict_and_by_level_in_the_order_of_its_numbers():
    groups = list(dict.fromkeys(group for group, _ in measured()))
    assert groups == ["all", "correct", "incorrect", "9 days", "10 days"]  # q4, without a level, is in the first three
    assert [measured()[group, "execution"].responses for group in groups] == [5, 2, 3, 2, 2]


def test_a_label_that_the_method_knows_has_its_zeros_though_no_response_has_it():
    here = measured(passages=PASSAGES[:2])
    assert here["all", "transition"].spans.value == 0 and here["all", "transition"].share.value == 0


def test_samples_of_one_question_are_resampled_together():
    """200 responses to ten questions are worth no more than ten, when the samples of a question agree."""
    records = [record(f"q{index % 10}", index // 10) for index in range(200)]
    passages = [found(one.id, *[("execution", 5, 9)] * (int(one.id[1:]) % 3), sample=one.sample) for one in records]
    many = measured(records, passages)["all", "execution"].spans
    few = measured(records[:10], passages[:10])["all", "execution"].spans
    assert (many.low, many.high) == pytest.approx((few.low, few.high))


def test_nothing_depends_on_the_order_of_the_records():
    records, passages = list(RECORDS), list(PASSAGES)
    random.Random(0).shuffle(records)
    passages.reverse()
    assert measured(records, passages) == measured()


def test_a_rule_that_looks_at_some_responses_only_is_refused_and_not_counted_as_zeros():
    with pytest.raises(InputError, match=r"seal, in 500 correct and 500 incorrect.*passes over.*q2 sample 0"):
        label_all(method(PASSAGES, limit=2), RECORDS, ThoughtRule(), READER)
    with pytest.raises(InputError, match=r"finds no span .*: there are 5 responses"):
        label_all(method([]), RECORDS, ThoughtRule(), READER)


def test_each_span_has_a_line_with_its_place_its_verdict_and_its_text():
    responses = label_all(method(PASSAGES), RECORDS, ThoughtRule(), READER)
    rows = list(span_rows(responses, READER))
    assert len(rows) == 6 and [row["index"] for row in rows] == [0, 1, 2, 0, 0, 1]
    assert rows[1] == {
        "id": "q1",
        "sample": 0,
        "index": 1,
        "label": "reflection",
        "start": 16,
        "end": 20,
        "tokens": 4,
        "correct": True,
        "level": "10 days",
        "text": "116 117 118 119",
    }


def test_the_table_and_the_figure_show_every_group_and_label(tmp_path):
    rows = as_json(table("name", "title", list(measured().values())))["rows"]
    assert [row["label"] for row in rows[:3]] == ["execution", "reflection", "transition"] and len(rows) == 15
    usage_figure(list(measured().values()), tmp_path / "figure.png")
    usage_figure(list(measured(RECORDS[:1], PASSAGES[:1]).values()), tmp_path / "single.png")  # no interval at all


def run(script, *flags, code=0):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *script.split(), *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


def test_the_script_counts_what_the_embedded_model_wrote(tmp_path):
    here = ("--artifacts", tmp_path)
    run("generate_responses.py", *here, "--n_questions", 24, "--max_length", 300)
    script = "-m scripts.class_statistics"
    out = run(script, *here, *ALL)
    path = store.classes_path(tmp_path, "tiny-reasoner", "arithmetic", "seal")
    records = store.read_records(store.responses_path(tmp_path, "tiny-reasoner", "arithmetic"))

    lines = [json.loads(line) for line in path.with_suffix(".ndjson").read_text(encoding="utf-8").splitlines()]
    answers = {one.id: one.response for one in records}
    assert lines and all(line["text"] in answers[line["id"]] for line in lines)
    execution = store.read_json(path)["rows"][0]
    assert execution["responses"] == 24 and execution["label"] == "execution"
    assert execution["spans per response"]["value"] == sum(line["label"] == "execution" for line in lines) / 24
    tokens = sum(line["tokens"] for line in lines if line["label"] == "execution")
    assert execution["tokens per response"]["value"] == pytest.approx(tokens / 24)
    assert path.with_suffix(".md").read_text(encoding="utf-8") in out
    with open(path.with_suffix(".csv"), encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(store.read_json(path)["rows"])

    manifest = store.read_json(store.manifest_path(path))
    assert manifest["finished"] and "responses/tiny-reasoner/arithmetic.jsonl" in manifest["inputs"]
    assert store.finished_records(path.parent) == [path.parent / "arithmetic.jsonl"]  # the spans are no records
    before = path.stat().st_mtime_ns
    run(script, *here, *ALL)
    assert path.stat().st_mtime_ns == before
    error = run(script, *here, "--n_correct", 3, "--n_incorrect", 3, code=2)
    assert len(error.splitlines()) < 6 and "made otherwise" in error and "--overwrite" in error
