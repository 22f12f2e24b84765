import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from thinksteer import journal, lines
from thinksteer.journal import RecordFile, RecordLog, iterate_records, read_records, record_files, shard_path
from thinksteer.records import InputError, Record

ROOT = Path(journal.__file__).parent.parent
RECORD = Record(
    id="q-0",
    sample=0,
    question="2 + 2?\u2028",
    reference="4",
    kind="math",
    prompt="<｜User｜>2 + 2?<｜Assistant｜>",
    response="<think>\nfour \ud800</think>\n\n4",
    token_ids=(5, 17, 2),
    thinking_tokens=2,
    response_tokens=3,
    status="closed",
    finish_reason="stop",
    forced_at=None,
    seed=11,
    prediction=None,
    correct=False,
)


def encode(record):
    return lines.encode(asdict(record))


def numbered(count):
    return [replace(RECORD, id=f"q-{index // 2}", sample=index % 2, seed=index) for index in range(count)]


def write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(map(encode, records)))


def test_what_is_appended_is_read_back_one_json_object_a_line(tmp_path):
    path = tmp_path / "new" / "a.jsonl"
    records = numbered(5)
    with RecordLog(path) as log:
        assert log.done == set()
        for record in records:
            log.append(record)
        assert read_records(path) == records  # readable while it grows
    lines = path.read_bytes().split(b"\n")
    assert [json.loads(line)["seed"] for line in lines[:-1]] == [0, 1, 2, 3, 4] and lines[-1] == b""
    assert list(json.loads(lines[0])) == list(Record.__dataclass_fields__)
    assert "<｜User｜>" in lines[0].decode()


def test_a_file_torn_anywhere_in_its_last_line_goes_on_to_the_same_bytes(tmp_path):
    path, records = tmp_path / "a.jsonl", numbered(3)
    write(path, records)
    whole = path.read_bytes()
    start = len(whole) - len(encode(records[-1]))
    for cut in [start, *range(start + 1, len(whole) - 1, 23), len(whole) - 1, len(whole)]:
        path.write_bytes(whole[:cut])
        assert len(read_records(path)) == (3 if cut == len(whole) else 2)
        with RecordLog(path) as log:
            assert log.done == {(record.id, record.sample) for record in records[: 3 if cut == len(whole) else 2]}
            if cut < len(whole):
                log.append(records[-1])
        assert path.read_bytes() == whole


CHILD = """
import sys
from dataclasses import replace
from pathlib import Path
from thinksteer.journal import RecordFile, RecordLog, iterate_records, _decode
record = _decode(sys.stdin.buffer.read(), "stdin")
with RecordLog(Path(sys.argv[1])) as log:
    for index in range(int(sys.argv[2])):
        if (str(index), 0) not in log.done:
            log.append(replace(record, id=str(index)))
"""
BIG = replace(RECORD, response="é" * 500_000)


def test_a_process_killed_while_writing_loses_and_repeats_nothing(tmp_path):
    path, count = tmp_path / "a.jsonl", 20
    line = len(encode(replace(BIG, id="0")))
    given = tmp_path / "given.json"
    given.write_bytes(encode(BIG))
    command = [sys.executable, "-c", CHILD, str(path), str(count)]
    for count_written in (3, 9):  # kill in the middle of a line, or as near as the clock allows
        with open(given, "rb") as stdin:
            child = subprocess.Popen(command, cwd=ROOT, stdin=stdin)
        deadline = time.monotonic() + 60
        while not path.exists() or path.stat().st_size < count_written * line + line // 2:
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.001)
        child.kill()
        assert child.wait() == -9
        assert count_written <= len(read_records(path)) < count
        with open(path, "ab") as file:  # what a kill inside the write leaves
            file.write(encode(replace(BIG, id="torn"))[:100_000])
    subprocess.run(command, cwd=ROOT, input=encode(BIG), check=True)
    assert read_records(path) == [replace(BIG, id=str(index)) for index in range(count)]


def test_a_second_process_is_refused_until_the_first_has_closed(tmp_path):
    path = tmp_path / "a.jsonl"
    with RecordLog(path) as log:
        log.append(RECORD)
        with pytest.raises(InputError, match=r"a\.jsonl: another process is writing"), RecordLog(path):
            pass
        log.append(replace(RECORD, id="q-1"))
    with RecordLog(path) as log:
        assert len(log.done) == 2


def test_the_same_record_is_not_written_twice(tmp_path):
    with RecordLog(tmp_path / "a.jsonl") as log:
        log.append(RECORD)
        with pytest.raises(ValueError, match="there already"):
            log.append(replace(RECORD, seed=5))
    assert read_records(tmp_path / "a.jsonl") == [RECORD]


@pytest.mark.parametrize("half", [b" \\ud800", b""])  # of a surrogate pair, which takes the slow way
@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"\n", r"Expecting value"),
        (b'{"id": "q"\n', r"Expecting ','"),
        (b"\xff\n", "codec can't decode"),
        (b"[1]\n", "not a JSON object"),
        (encode(RECORD).replace(b'"seed"', b'"sead"'), "'seed' missing, 'sead' unknown"),
        (encode(RECORD).replace(b'"seed"', b'"sown": 1, "seed"'), "'sown' unknown"),
        (encode(RECORD).replace(b'"seed": 11', b'"seed": 11.0'), "'seed' is 11.0"),
        (encode(RECORD).replace(b'"correct": false', b'"correct": 0'), "'correct' is 0"),
        (encode(RECORD).replace(b'"sample": 0', b'"sample": true'), "'sample' is True"),
        (encode(RECORD).replace(b"[5, ", b"[null, "), r"'token_ids' is \[None"),
        (encode(RECORD).replace(b"closed", b"shut"), "'status' is 'shut'"),
        (encode(RECORD).replace(b'"reference": "4"', b'"reference": null'), "'reference' is None"),
    ],
)
def test_any_other_bad_line_is_an_error_that_names_file_and_line_and_changes_nothing(tmp_path, line, fault, half):
    path, line = tmp_path / "a.jsonl", line.replace(b" \\ud800", half)
    good = b"".join(map(encode, numbered(4)[1:]))
    for before, after in [(good, good[:0]), (good, good[:50]), (b"", good)]:
        path.write_bytes(before + line + after)
        number = before.count(b"\n") + 1
        with pytest.raises(InputError, match=rf"a\.jsonl:{number}: .*{fault}"):
            read_records(path)
        with pytest.raises(InputError, match=rf"a\.jsonl:{number}: "), RecordLog(path):
            pass
        assert path.read_bytes() == before + line + after


def test_a_repeated_id_and_sample_is_an_error(tmp_path):
    write(tmp_path / "a.jsonl", [RECORD, replace(RECORD, sample=1), RECORD])
    with pytest.raises(InputError, match=r"a\.jsonl: id 'q-0' sample 0 occurs twice"):
        read_records(tmp_path / "a.jsonl")
    with pytest.raises(InputError, match="occurs twice"), RecordLog(tmp_path / "a.jsonl"):
        pass


def test_shards_are_read_as_one_in_order(tmp_path):
    path, records = tmp_path / "MATH-500.jsonl", numbered(24)
    assert shard_path(path, (3, 12)).name == "MATH-500.3-of-12.jsonl"
    for index in range(12):
        write(shard_path(path, (index, 12)), records[2 * index : 2 * index + 2])
    write(tmp_path / "MATH-500b.jsonl", [RECORD])
    write(tmp_path / "MATH-500b.0-of-2.jsonl", [RECORD])
    (tmp_path / ".MATH-500.host-1.partial.jsonl").write_text("half")
    (tmp_path / "MATH-500.0-of-12.jsonl.run.json").write_text("{}")
    assert read_records(path) == records
    assert record_files(shard_path(path, (3, 12))) == [shard_path(path, (3, 12))]


def test_an_incomplete_or_mixed_set_of_shards_is_refused(tmp_path):
    path = tmp_path / "gsm8k.jsonl"
    with pytest.raises(InputError, match=r"gsm8k\.jsonl is missing"):
        read_records(path)
    with pytest.raises(InputError, match="is missing"):
        read_records(tmp_path / "nowhere" / "gsm8k.jsonl")
    write(shard_path(path, (0, 3)), numbered(2))
    with pytest.raises(InputError, match=r"gsm8k\.1-of-3\.jsonl, gsm8k\.2-of-3\.jsonl missing"):
        read_records(path)
    write(shard_path(path, (0, 2)), [])
    with pytest.raises(InputError, match="shards of 2 and shards of 3 are mixed"):
        read_records(path)
    shard_path(path, (0, 2)).unlink()
    write(path, [])
    with pytest.raises(InputError, match=r"gsm8k\.jsonl and shards of 3 are mixed"):
        read_records(path)


def test_a_record_in_two_shards_is_an_error(tmp_path):
    for index in range(2):
        write(shard_path(tmp_path / "a.jsonl", (index, 2)), [RECORD])
    with pytest.raises(InputError, match=r"a\.1-of-2\.jsonl: id 'q-0' sample 0 occurs twice"):
        read_records(tmp_path / "a.jsonl")


def test_without_token_ids_the_rest_is_the_same_whatever_the_texts_look_like(tmp_path):
    path = tmp_path / "a.jsonl"
    hostile = ['"token_ids": [1, 2], ', '\\"token_ids\\": [7]', '"token_ids": [', "token_ids", '], "token_ids": [x']
    records = [replace(RECORD, id=text, prompt=text, response=text, prediction=text) for text in hostile]
    write(path, [*records, replace(RECORD, token_ids=())])
    spaced = json.dumps(asdict(replace(RECORD, id="otherwise written")), separators=(",", ":"))
    path.write_bytes(path.read_bytes() + spaced.encode() + b"\n")
    *ours, foreign = read_records(path)
    assert list(iterate_records(path, token_ids=False)) == [*(replace(one, token_ids=()) for one in ours), foreign]


def test_a_record_file_is_read_where_it_is_asked_for_across_shards(tmp_path):
    records = numbered(5)
    for part in range(2):
        write(shard_path(tmp_path / "a.jsonl", (part, 2)), records[part::2])
    file = RecordFile(tmp_path / "a.jsonl")
    expected = [replace(one, token_ids=()) for one in [*records[0::2], *records[1::2]]]
    assert list(file) == expected == [file[row] for row in range(5)] and len(file) == 5 and file[-1] == expected[-1]
    last = shard_path(tmp_path / "a.jsonl", (1, 2))
    last.write_bytes(last.read_bytes() + encode(RECORD)[:40])
    assert len(RecordFile(tmp_path / "a.jsonl")) == 5, "a torn line is none"


@pytest.mark.parametrize("ids", ["[1, true]", "[1.5]", '["1"]', "7", "[[1]]", "[1, null]"])
def test_token_ids_that_are_no_integers_are_refused_also_where_they_are_not_read(ids, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(encode(RECORD).replace(b"[5, 17, 2]", ids.encode()))
    for token_ids in (True, False):
        with pytest.raises(InputError, match=r"a.jsonl:1: not a record: 'token_ids' is"):
            list(iterate_records(path, token_ids))
