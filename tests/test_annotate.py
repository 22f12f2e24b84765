"""The script that annotates, with each of its annotators, as a user runs it."""

import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from importlib import import_module
from io import StringIO
from unittest.mock import patch

import pytest
from synthetic import record
from test_judge import bad, good, serving
from test_stages import ENVIRONMENT, MODEL, ROOT, run
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from scripts.annotate import PROMPT, describe
from thinksteer import models, store
from thinksteer.annotation import LABELS, Annotation, Section, passage
from thinksteer.annotations import read_annotations
from thinksteer.records import InputError
from thinksteer.thinking import TEMPLATES, Prompting


def command(script, *flags, code=0):
    """What it prints, run in this process, which has the libraries loaded; its error where it must fail."""
    out = StringIO()
    with patch.object(sys, "argv", [script, *map(str, flags)]), redirect_stdout(out):
        try:
            import_module(f"scripts.{script}").main()
        except InputError as error:
            assert code == 2, error
            return str(error)
    assert code == 0, out.getvalue()
    return out.getvalue()


def process(script, *flags):
    """What it prints, run as users run it."""
    asked = [sys.executable, "-m", f"scripts.{script}", *map(str, flags)]
    done = subprocess.run(asked, capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("artifacts")
    run("generate_responses.py", "--artifacts", root, "--n_questions", 20, "--max_length", 300)
    return root


def records(root):
    return store.responses_path(root, MODEL, "arithmetic")


def by_key(root):
    return {(one.id, one.sample): one for one in store.read_records(records(root))}


def test_keywords_annotate_every_response_once(root):
    out = process("annotate", "--artifacts", root)
    path = store.annotations_path(root, records(root), "keywords")
    made = read_annotations(path, records(root))
    assert made.keys() == by_key(root).keys() and f"{path}: 20 responses" in out
    assert all(one.uncovered == 0 and not one.unmatched and one.sections for one in made.values())
    assert sorted(one.name for one in path.parent.iterdir()) == ["arithmetic.jsonl", "arithmetic.jsonl.run.json"]
    counts = [sum(part.label == label for one in made.values() for part in one.sections) for label in LABELS]
    assert ", ".join(f"{count} {label}" for count, label in zip(counts, LABELS, strict=True)) in out
    before = path.read_bytes()
    assert command("annotate", "--artifacts", root) == out and path.read_bytes() == before
    error = command("annotate", "--artifacts", root, "--n_responses", 5, code=2)
    assert "made otherwise" in error and "n_responses" in error


def test_files_named_are_annotated_where_they_mirror_shards_as_one(root, tmp_path):
    lines = records(root).read_bytes().splitlines(keepends=True)
    folder = tmp_path / "steering" / MODEL / "arithmetic" / "x"
    folder.mkdir(parents=True)
    for part in range(2):
        (folder / f"1.0.{part}-of-2.jsonl").write_bytes(b"".join(lines[part::2]))
    (folder / "2.0.jsonl").write_bytes(b"".join(lines[:3]))
    command("annotate", folder / "1.0.jsonl", folder / "2.0.jsonl", "--artifacts", tmp_path, "--name", "mine")
    there = tmp_path / "annotations/mine/steering" / MODEL / "arithmetic/x"
    assert read_annotations(there / "1.0.jsonl").keys() == by_key(root).keys()
    assert len(read_annotations(there / "2.0.jsonl")) == 3
    assert "is not under --artifacts" in command("annotate", records(root), "--artifacts", tmp_path, code=2)


def test_the_first_responses_are_the_first_by_name_whatever_the_order_in_the_file(root):
    command("annotate", "--artifacts", root, "--name", "some", "--n_responses", 7)
    some = read_annotations(store.annotations_path(root, records(root), "some"))
    assert sorted(some) == sorted(by_key(root))[:7]


def annotate_by_judge(root, server, *flags, code=0):
    flags = ("--endpoint", server.url, "--endpoint_model", "org/m", "--retries", 0, *flags)
    return command("annotate", "--artifacts", root, "--annotator", "judge", *flags, code=code)


def test_a_judge_is_asked_about_the_thinking_and_its_answer_is_located(root):
    def reply(prompt, number):
        thinking = prompt.partition(PROMPT.partition("{thinking}")[0])[2]
        return good(prompt, text=f'["guessing"]{thinking.strip()}["end-section"]["deduction"]Made up.["end-section"]')

    with serving(reply) as server:
        out = annotate_by_judge(root, server)
    made = read_annotations(store.annotations_path(root, records(root), "org/m"), records(root))
    for key, one in by_key(root).items():
        thinking = one.response.partition("<think>")[2].partition("</think>")[0]
        assert PROMPT.replace("{thinking}", thinking) in server.asked
        (part,) = made[key].sections
        assert part.label == "guessing" and one.response[part.start : part.end] == thinking.strip()
        assert made[key].unmatched == ("deduction: Made up.",) and made[key].uncovered == 0
    assert "other labels: 20 guessing; 50.0% of pieces found nowhere, 0.0% of characters without label" in out
    assert (root / "judge" / "org--m.jsonl").is_file()


def test_a_judge_that_stopped_is_not_asked_again_about_what_it_answered(root):
    def reply(prompt, number):
        return good(prompt, text="no marks") if number < 5 else bad(400)

    flags = ("--name", "stopped", "--n_responses", 12, "--endpoint_model", "stopped")
    with serving(reply) as server:
        annotate_by_judge(root, server, *flags, "--concurrency", 1, code=2)
        path = store.annotations_path(root, records(root), "stopped")
        assert len(read_annotations(path)) == 5
        server.reply = lambda prompt, number: good(prompt, text="no marks")
        out = annotate_by_judge(root, server, *flags)
        assert len(server.asked) == 13 and len(read_annotations(path, records(root))) == 12  # one was refused
    assert "0.0% of pieces found nowhere, 100.0% of characters without label" in out


def test_a_response_that_thought_nothing_is_not_asked_about(root, tmp_path):
    one = next(iter(by_key(root).values()))
    ids = (*one.token_ids[:2], one.token_ids[one.thinking_tokens - 1])  # the delimiters, and a line break in between
    empty = replace(one, response="<think>\n</think>", token_ids=ids, thinking_tokens=None, status="empty")
    path = store.responses_path(tmp_path, MODEL, "arithmetic")
    with store.RecordLog(path) as log:
        log.append(empty)
    with serving() as server:
        annotate_by_judge(tmp_path, server)
    (made,) = read_annotations(store.annotations_path(tmp_path, path, "org/m")).values()
    assert server.asked == [] and made.annotated == "" and made.sections == () and made.uncovered == 0


def test_a_local_model_annotates_in_this_process(root):
    flags = ("--annotator", "local", "--annotator_model", MODEL, "--max_length", 40, "--n_responses", 3)
    out = command("annotate", "--artifacts", root, *flags)
    path = store.annotations_path(root, records(root), MODEL)
    made = read_annotations(path, records(root))
    assert len(made) == 3 and "3 responses" in out
    assert all("<think>" not in one.annotated for one in made.values())
    assert store.read_json(store.manifest_path(path))["settings"]["annotator_model"] == MODEL


@pytest.fixture
def as_text(root, tmp_path):
    """The records as they would be had others published their texts, and one that was left out."""

    def as_text(*more):
        path = store.responses_path(tmp_path, MODEL, "arithmetic")
        with store.RecordLog(path) as log:
            for one in (*by_key(root).values(), *more):
                log.append(replace(one, token_ids=(), thinking_tokens=one.thinking_tokens and one.thinking_tokens + 1))
        return path

    return as_text


def test_records_without_token_ids_are_annotated_by_those_of_the_models_tokenizer(root, tmp_path, as_text):
    command("annotate", "--artifacts", root)
    path = as_text(record("gone", length=None, response=""))
    out = command("annotate", "--artifacts", tmp_path)
    assert f"{path}: 20 responses have no token ids: their texts get those of {MODEL}'s tokenizer\n" in out
    made = read_annotations(store.annotations_path(tmp_path, path, "keywords"), path)
    assert made.pop(("gone", 0)) == Annotation("gone", 0, "", (), (), 0)
    assert made == read_annotations(store.annotations_path(root, records(root), "keywords"))
    first = store.read_records(path)[0]
    with pytest.raises(InputError, match="has text but no token ids: import it again with --model"):
        passage(first, made[first.id, first.sample], None)


def test_text_that_the_models_tokenizer_does_not_give_back_is_refused_by_name(tmp_path):
    words = Tokenizer(WordLevel({"ok": 0, "[unk]": 1}, unk_token="[unk]"))
    words.add_special_tokens(["<think>", "</think>", "<s>"])
    folder = tmp_path / "words"
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", unk_token="[unk]").save_pretrained(folder)
    (folder / "config.json").write_bytes((models.TINY_REASONER / "config.json").read_bytes())
    with store.RecordLog(store.responses_path(tmp_path, "words", "arithmetic")) as log:
        log.append(record("odd", response="<think>ok</think>7"))
    flags = ("--model", folder, "--template", "deepseek")
    error = command("annotate", "--artifacts", tmp_path, *flags, code=2)
    assert "odd sample 0: the tokenizer does not give its text back: give the --model that wrote it" in error
    assert not (tmp_path / "annotations").exists()


def test_what_an_annotator_needs_is_named(root):
    assert "--endpoint_model" in command("annotate", "--artifacts", root, "--annotator", "judge", code=2)
    assert "--annotator_model" in command("annotate", "--artifacts", root, "--annotator", "local", code=2)


def test_what_follows_the_thinking_is_the_annotation():
    after = TEMPLATES["deepseek"].after_thinking
    assert after("<think>\nHm </think>a</think>b", "closed") == "a</think>b"
    assert after("a</think>", "no_think") == "a</think>"
    assert after("<think>a", "capped") == ""
    assert Prompting(thinking="response").apply("qwen3", None).after_thinking("All of it", "closed") == "All of it"


def test_the_summary_counts_sections_pieces_and_characters():
    parts = (Section("deduction", 0, 4, 0, 1), Section("odd", 4, 8, 1, 2))
    made = [Annotation("q1", 0, "", parts, ("x: y",), 2), Annotation("q2", 0, "", (), (), 0)]
    said = describe([record("q1", response="ab cdef ghij"), record("q2")], made)
    assert "2 responses; " in said and "1 deduction" in said and "0 backtracking; other labels: 1 odd; " in said
    assert "33.3% of pieces found nowhere" in said and "25.0% of characters without label" in said  # 2 of 6 + 2
    assert "0.0% of pieces found nowhere, 0.0% of" in describe([], [])
