import json
from dataclasses import asdict, replace

import pytest

from thinksteer.answers import Answer, AnswerLog
from thinksteer.records import InputError

ANSWER = Answer("k0", "judge-1", "é\u2028 \ud800", "stop", 100, 10, 20, 0.25)


def numbered(count):
    return [replace(ANSWER, key=f"k{index}") for index in range(count)]


def write(path, answers):
    with AnswerLog(path) as log:
        for answer in answers:
            log.append(answer)
    return path.read_bytes()


def test_what_is_appended_is_on_the_disk_at_once_and_read_back_with_what_it_cost(tmp_path):
    path = tmp_path / "new" / "cache.jsonl"
    with AnswerLog(path) as log:
        for count, answer in enumerate(numbered(3), start=1):
            log.append(answer)
            assert len(path.read_bytes().splitlines()) == count
    with AnswerLog(path) as log:
        assert list(log.answers.values()) == numbered(3) and log.paid == 0.75
        log.append(replace(ANSWER, text="better"))
    with AnswerLog(path) as log:
        assert log.answers["k0"].text == "better" and len(log.answers) == 3 and log.paid == 1.0


def test_a_file_torn_anywhere_in_its_last_line_goes_on_to_the_same_bytes(tmp_path):
    path = tmp_path / "cache.jsonl"
    whole = write(path, numbered(3))
    start = whole[:-1].rindex(b"\n") + 1
    for cut in [start, start + 1, start + 40, len(whole) - 1]:
        path.write_bytes(whole[:cut])
        with AnswerLog(path) as log:
            assert list(log.answers) == ["k0", "k1"] and log.paid == 0.5
            log.append(numbered(3)[2])
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"\n", "Expecting value"),
        (b'{"key": "k"\n', "Expecting ','"),
        (b"\xff\n", "codec can't decode"),
        (b"[1]\n", "not an answer"),
        (json.dumps(asdict(ANSWER)).replace("finish", "finesse").encode() + b"\n", r"not an answer \(key, model, text"),
        (json.dumps(asdict(ANSWER) | {"cost": None}).encode() + b"\n", "not an answer"),
        (json.dumps(asdict(ANSWER) | {"max_tokens": True}).encode() + b"\n", "not an answer"),
    ],
)
def test_any_other_bad_line_is_an_error_that_names_file_and_line_and_changes_nothing(tmp_path, line, fault):
    path = tmp_path / "cache.jsonl"
    good = write(path, numbered(2))
    for after in (b"", good, good[:50]):
        path.write_bytes(good + line + after)
        with pytest.raises(InputError, match=rf"cache\.jsonl:3: .*{fault}.*remove the line"), AnswerLog(path):
            pass
        assert path.read_bytes() == good + line + after


def test_a_second_process_is_refused_until_the_first_has_closed(tmp_path):
    path = tmp_path / "cache.jsonl"
    with AnswerLog(path) as log:
        log.append(ANSWER)
        with pytest.raises(InputError, match=r"cache\.jsonl: another process is writing"), AnswerLog(path):
            pass
    with AnswerLog(path) as log:
        assert log.paid == 0.25


@pytest.mark.parametrize(
    ("change", "whole", "settled"),
    [
        ({}, True, [True, True, True]),
        ({"finish": "length"}, False, [True, True, False]),  # asked again only if more tokens are allowed
        ({"finish": "content_filter"}, False, [False] * 3),
        ({"text": " \n"}, False, [False] * 3),
    ],
)
def test_an_answer_that_is_cut_withheld_or_empty_is_not_whole(tmp_path, change, whole, settled):
    answer = replace(ANSWER, **change)
    assert answer.whole == whole
    with AnswerLog(tmp_path / "cache.jsonl") as log:
        log.append(answer)
        assert [log.settles("k0", max_tokens) for max_tokens in (99, 100, 101)] == settled
        assert not log.settles("k1", 1)
