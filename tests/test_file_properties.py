"""What a kill, a bad disk or a stranger leaves of a file: its whole lines, or words.

Logs are cut at any byte; other files are damaged anywhere.
"""

import io
import json
import shutil
import sys
import zipfile
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path

import pyarrow
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from synthetic import record
from test_upstream import EVALUATION, EVALUATION_FILE, RESPONSES, RESPONSES_FILE, SKIPPED, STEERED, STEERED_FILE
from test_venhoff import BACK, EFFECTS, vectors
from test_venhoff import RESPONSES as LABELLED
from test_venhoff import STEERED as BOTH_WAYS

from scripts import import_behaviours
from thinksteer import analysis, models, rows, store
from thinksteer.annotation import LABELS, Annotation, Section
from thinksteer.annotations import AnnotationLog, read_annotations
from thinksteer.answers import Answer, AnswerLog
from thinksteer.archive import unpack
from thinksteer.exchange import read as read_vectors
from thinksteer.exchange import write_gguf
from thinksteer.journal import RecordLog, iterate_records
from thinksteer.lines import cut
from thinksteer.records import InputError
from thinksteer.upstream import import_upstream
from thinksteer.venhoff import load

UPSTREAM = {
    RESPONSES_FILE: RESPONSES,
    STEERED_FILE: STEERED,
    STEERED_FILE.replace("0.0", "0.1"): SKIPPED,
    EVALUATION_FILE: EVALUATION,
}
BEHAVIOURS = {
    "means.pt": vectors(),
    "effects.pt": EFFECTS,
    "responses.json": LABELLED,
    "steering.json": {BACK: BOTH_WAYS[BACK]},
}

few = settings(derandomize=True, deadline=None, max_examples=50, suppress_health_check=list(HealthCheck))

line_texts = st.text(st.characters(codec="utf-8"), max_size=20)


@st.composite
def records_of_any_text(draw):
    ids = draw(st.lists(line_texts, unique=True, min_size=1, max_size=5))
    return [replace(record(id, response=draw(line_texts)), question=draw(line_texts)) for id in ids]


@few
@given(records_of_any_text(), st.data())
def test_a_record_file_cut_anywhere_holds_its_whole_lines_and_goes_on_to_hold_them_all(tmp_path_factory, found, data):
    path = tmp_path_factory.getbasetemp() / "records.jsonl"
    path.unlink(missing_ok=True)
    with RecordLog(path) as log:
        for one in found:
            log.append(one)
    whole = path.read_bytes()
    assert whole.count(b"\n") == len(found) and list(iterate_records(path)) == found
    at = data.draw(st.integers(0, len(whole)), "cut")
    path.write_bytes(whole[:at])
    kept = whole[:at].count(b"\n")
    assert list(iterate_records(path)) == found[:kept] and cut(path) == (not whole[:at].endswith(b"\n") and at > 0)
    with RecordLog(path) as log:
        assert log.done == {(one.id, one.sample) for one in found[:kept]}
        for one in found:
            if (one.id, one.sample) not in log.done:
                log.append(one)
    assert path.read_bytes() == whole


numbers64 = st.integers(0, 99)
annotated = st.builds(
    Annotation,
    line_texts,
    numbers64,
    line_texts,
    st.lists(st.builds(Section, st.sampled_from(LABELS), *[numbers64] * 4), max_size=3).map(tuple),
    st.lists(line_texts, max_size=2).map(tuple),
    numbers64,
)
answered = st.builds(
    Answer, line_texts, line_texts, line_texts, line_texts, *[numbers64] * 3, st.floats(0, 9, allow_nan=False)
)


@few
@given(st.lists(annotated, unique_by=lambda one: (one.id, one.sample), max_size=4), st.data())
def test_annotations_cut_anywhere_are_the_whole_ones(tmp_path_factory, found, data):
    path = tmp_path_factory.getbasetemp() / "annotations.jsonl"
    path.unlink(missing_ok=True)
    with AnnotationLog(path) as log:
        for one in found:
            log.append(one)
    assert list(read_annotations(path).values()) == found
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole)), "cut")
    path.write_bytes(whole[:at])
    assert list(read_annotations(path).values()) == found[: whole[:at].count(b"\n")]


@few
@given(st.lists(answered, max_size=4), st.data())
def test_paid_answers_cut_anywhere_are_the_whole_ones(tmp_path_factory, found, data):
    path = tmp_path_factory.getbasetemp() / "answers.jsonl"
    path.unlink(missing_ok=True)
    with AnswerLog(path) as log:
        for one in found:
            log.append(one)
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole)), "cut")
    path.write_bytes(whole[:at])
    kept = found[: whole[:at].count(b"\n")]
    with AnswerLog(path) as log:
        assert log.answers == {one.key: one for one in kept} and log.paid == pytest.approx(
            sum(one.cost for one in kept)
        )


def saved(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def zipped(**members: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"responses/m/{name}.jsonl", content)
    return stream.getvalue()


def written_to(path: Path, write) -> bytes:
    write(path)
    return path.read_bytes()


VECTORS = {index: torch.ones(8) for index in range(3)}
MEANS = {name: {"mean": torch.ones(3, 8), "count": 2} for name in ("overall", "deduction")}
READERS = {  # name -> how such a file is made, and read
    "v.gguf": (lambda path: write_gguf(path, VECTORS, {"model_hint": "m", "x": 1.5}), read_vectors),
    "v.pt": (lambda path: path.write_bytes(saved(VECTORS[0])), lambda path: read_vectors(path, 3)),
    "mean_vectors.pt": (lambda path: path.write_bytes(saved(MEANS)), load),
    "d.safetensors": (
        lambda path: store.write_safetensors(path, {"direction": torch.ones(3, 8)}, {"read_site": "block_out"}),
        lambda path: (store.read_direction(path), read_vectors(path)),
    ),
    "a.zip": (
        lambda path: path.write_bytes(zipped(a="{}\n" * 9, b="")),
        lambda path: unpack(path, path.with_name("unpacked")),
    ),
    "q.jsonl": (lambda path: path.write_text('{"question": "é", "answer": [1, {"a": true}]}\n' * 2), rows.read),
    "q.json": (lambda path: path.write_text('[{"question": "é", "answer": 1.5}, {"question": null}]'), rows.read),
    "q.csv": (lambda path: path.write_text('question,answer\n"a,b",1\n"c ""d""",2\n'), rows.read),
    "q.parquet": (lambda path: parquet.write_table(pyarrow.table({"question": ["é", "b"]}), path), rows.read),
}
harms = st.tuples(st.integers(0, 1 << 16), st.sampled_from("xdiz"), st.integers(0, 255))  # where, how, and a byte


@pytest.mark.parametrize("name", READERS)
@settings(few, max_examples=40)
@given(st.lists(harms, min_size=1, max_size=4))
def test_whatever_has_become_of_a_file_it_is_read_or_refused_in_words(tmp_path_factory, name, harm):
    folder = tmp_path_factory.getbasetemp()
    make, reader = READERS[name]
    data = bytearray(written_to(folder / name, make))
    for place, how, byte in harm:
        place %= len(data) or 1
        if how == "x":
            data[place : place + 1] = bytes([byte])
        elif how == "d":
            del data[place : place + 1 + byte % 9]
        elif how == "i":
            data[place:place] = bytes([byte]) * (1 + byte % 9)
        else:  # a size that is far too large
            data[place : place + 8] = (1 << byte % 63).to_bytes(8, "little")
    (folder / name).write_bytes(data)
    shutil.rmtree(folder / "unpacked", ignore_errors=True)
    with suppress(InputError):
        reader(folder / name)


# Values that a field of a published file may hold by mistake; the last few are what some fields may hold.
ODD = [
    None,
    True,
    False,
    -1,
    -2,
    0,
    6.0,
    0.5,
    10**30,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\ud800",
    [],
    {},
    ["a"],
    [[1]],
]
ODD += [
    {"q": "1+1?"},
    [None],
    "<think>",
    "</think>",
    "<think>a</think>b",
    2**53,
    1e15,
    torch.ones(2),
    torch.ones(6, 128),
]
changes = st.lists(
    st.tuples(st.integers(0, 1 << 16), st.sampled_from(["put", "drop", "twice"]), st.sampled_from(ODD)),
    min_size=1,
    max_size=2,
)


def places(value: object) -> list[tuple[object, object]]:
    """Every (container, key) in a value of JSON."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((value, key), *places(value[key]))]


def damaged(value: object, changes: list[tuple[int, str, object]], plain: bool) -> object:
    """A copy with a few fields put, dropped or doubled; `plain`: no tensors, since it goes into JSON."""
    value = deepcopy(value)
    for number, how, odd in changes:
        found = places(value)
        if found and not (plain and isinstance(odd, torch.Tensor)):
            container, key = found[number % len(found)]
            if how == "put":
                container[key] = deepcopy(odd)  # which may be changed in turn
            elif how == "drop":
                del container[key]
            elif isinstance(container, list):
                container.insert(key, container[key])
    return value


def read_all(root: Path) -> None:
    """Every artifact below the root, by the reader of its kind, and the figures that a report makes of records."""
    for path in root.rglob("*.jsonl"):
        if path.is_relative_to(root / "annotations"):
            read_annotations(path, root / path.relative_to(root / "annotations" / "upstream"))
        else:
            found = store.read_records(path)
            json.dumps(analysis.metrics(found, None), allow_nan=False)
            analysis.paired_length_difference(found, found)
    for path in root.rglob("*.safetensors"):
        store.read_direction(path)
    for path in root.rglob("*.json"):
        store.read_json(path)


@pytest.mark.parametrize("name, value", UPSTREAM.items(), ids=["responses", "steered", "skipped", "evaluation"])
@settings(few, max_examples=60)
@given(changes)
def test_upstreams_files_with_any_field_changed_are_refused_or_all_that_they_leave_can_be_read(
    tmp_path_factory, name, value, changes
):
    folder = tmp_path_factory.getbasetemp() / "changed"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text(json.dumps(damaged(value, changes, plain=True)))
    try:
        import_upstream(folder, folder / "art")
    except InputError as error:
        assert Path(name).name in str(error) and "\n" not in str(error) and not (folder / "art").exists()
    else:
        read_all(folder / "art")


@pytest.mark.parametrize("name, value", BEHAVIOURS.items(), ids=BEHAVIOURS)
@settings(few, max_examples=20)
@given(changes)
def test_behaviours_with_any_field_changed_are_refused_or_all_that_they_leave_can_be_read(
    tmp_path_factory, name, value, changes
):
    folder = tmp_path_factory.getbasetemp() / "behaviours"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    plain = name.endswith(".json")
    value = damaged(value, changes, plain)
    (folder / name).write_bytes(json.dumps(value).encode() if plain else saved(value))
    with pytest.MonkeyPatch.context() as patch:
        flags = (folder / name, "--artifacts", folder / "art", "--template", "plain")
        patch.setattr(sys, "argv", ["import_behaviours", *map(str, flags)])
        patch.setattr(models, "load_tokenizer", cache(models.load_tokenizer))
        try:
            import_behaviours.main()
        except InputError as error:
            assert name in str(error) and "\n" not in str(error) and not (folder / "art").exists()
        else:
            read_all(folder / "art")
