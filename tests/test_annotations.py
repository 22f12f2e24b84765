"""Annotations files: where they lie, what a kill leaves of them, and what is refused."""

import json
from pathlib import Path

import pytest

from thinksteer import store
from thinksteer.annotation import Annotation, Section
from thinksteer.annotations import AnnotationLog, read_annotations
from thinksteer.records import InputError


def made(id="q1", sample=0):
    return Annotation(id, sample, '["x"]é\ud800["end-section"]', (Section("x", 8, 9, 2, 4),), ("y: no",), 3)


def write(path, *annotations):
    with AnnotationLog(path) as log:
        for annotation in annotations:
            log.append(annotation)


def test_an_annotations_file_mirrors_its_record_file():
    root = Path("artifacts")
    records = root / "steering/tiny/arithmetic/backtracking/1.0.layer3.jsonl"
    there = root / "annotations/openai--gpt/steering/tiny/arithmetic/backtracking/1.0.layer3.jsonl"
    assert store.annotations_path(root, records, "openai/gpt") == there
    assert store.annotations_path(root.resolve(), records, "openai/gpt") == there.resolve()
    assert (
        store.annotations_path(root, root / "x/../responses/m/d.jsonl", "k")
        == root / "annotations/k/responses/m/d.jsonl"
    )
    with pytest.raises(InputError, match=r"other/a.jsonl is not under --artifacts artifacts"):
        store.annotations_path(root, Path("other/a.jsonl"), "k")
    name = "a-b--c.tiny.MATH-500.agreement.json"
    assert store.agreement_path(root, "a", "b/c", "tiny", "MATH-500") == root / "annotations" / name


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "deep" / "a.jsonl"
    write(path, made("q1"), made("q1", 1))
    write(path, made("q2"))  # goes on
    read = read_annotations(path)
    assert list(read) == [("q1", 0), ("q1", 1), ("q2", 0)] and read["q2", 0] == made("q2")


def test_one_response_is_annotated_once(tmp_path):
    path = tmp_path / "a.jsonl"
    write(path, made())
    with AnnotationLog(path) as log:
        assert log.done == {("q1", 0)}
        with pytest.raises(ValueError, match="is there already"):
            log.append(made())
        log.append(made("q2"))
        with pytest.raises(ValueError, match="is there already"):
            log.append(made("q2"))
        with pytest.raises(InputError, match="another process"), AnnotationLog(path):
            pass
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(InputError, match=r"a.jsonl:3: id 'q1' sample 0 occurs twice"):
        read_annotations(path)


def test_a_line_torn_by_a_kill_is_redone(tmp_path):
    path = tmp_path / "a.jsonl"
    write(path, made("q1"), made("q2"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert list(read_annotations(path)) == [("q1", 0)]
    with AnnotationLog(path) as log:
        assert log.done == {("q1", 0)}
        log.append(made("q2"))
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "change",
    [
        {"uncovered": "3"},
        {"uncovered": True},
        {"sample": 1.0},
        {"id": 7},
        {"annotated": None},
        {"unmatched": [3]},
        {"unmatched": None},
        {"sections": None},
        {"sections": [{"label": "x", "start": 0, "end": 1, "first": 0}]},
        {"sections": [{"label": "x", "start": 0, "end": "1", "first": 0, "last": 1}]},
        {"sections": [{"label": 1, "start": 0, "end": 1, "first": 0, "last": 1}]},
        {"more": 1},
    ],
)
def test_a_line_that_is_no_annotation_is_named(tmp_path, change):
    path = tmp_path / "a.jsonl"
    write(path, made("q1"), made("q2"))
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps(json.loads(second) | change)}\n")
    for use in (read_annotations, lambda path: write(path)):
        with pytest.raises(InputError, match=r"a.jsonl:2: no annotation .*remove the line"):
            use(path)


@pytest.mark.parametrize("line", ["{", "[]", "3", "{}", "\udcff"])
def test_a_line_that_is_no_object_is_named(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_bytes(f"{line}\n".encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"a.jsonl:1: no annotation"):
        read_annotations(path)


def test_annotations_of_responses_that_have_changed_are_refused(tmp_path):
    records, path = tmp_path / "responses/m/d.jsonl", tmp_path / "annotations/k/responses/m/d.jsonl"
    records.parent.mkdir(parents=True)
    records.write_text("")
    with pytest.raises(InputError, match=r"is missing: make it with scripts.annotate"):
        read_annotations(path)
    with store.run(path, {}, [records], overwrite=False):
        write(path, made())
        with pytest.raises(InputError, match="is not finished"):
            read_annotations(path, records)
    assert list(read_annotations(path, records)) == [("q1", 0)]
    records.write_text(" ")
    assert list(read_annotations(path)) == [("q1", 0)]
    with pytest.raises(InputError, match="made from other responses"):
        read_annotations(path, records)
    store.manifest_path(path).unlink()
    with pytest.raises(InputError, match="is not finished"):
        read_annotations(path, records)
