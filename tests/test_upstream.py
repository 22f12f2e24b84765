import io
import json
import pickle
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

import analyze_results
from scripts import import_upstream as script
from thinksteer import models, texts
from thinksteer.records import InputError
from thinksteer.store import read_json, read_records, read_safetensors, run_settings
from thinksteer.thinking import TEMPLATES, Reader
from thinksteer.upstream import import_upstream

MODEL = "deepseek-qwen-1.5b"
THOUGHT = "<think>\nTwo.\n</think>\n\n4"
DIRECTION = torch.randn(3, 1, 5, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
RESPONSES = [
    {"question": "2 + 2?", "response": THOUGHT, "thinking": "<think>\nTwo.\n</think>", "thinking_length": 7},
    {"question": "3 + 3?", "response": "<think>\nwithout end", "thinking": "", "thinking_length": -1},
    {"question": "4 + 4?", "response": "8", "thinking": "", "thinking_length": -1},
]
STEERED = {
    "responses": ["a", "b", "c"],
    "think_lengths": [40, 8192, 12],
    "correctness": [True, False, True],
    "accuracy": 0.6,
}
SKIPPED = {"responses": ["a", "c"], "think_lengths": [40, -1, 12], "correctness": [True, False], "accuracy": 0.5}
EVALUATION = {
    "sample_results": [
        {
            "think_lengths": lengths,
            "response_texts": [f"{sample}a", f"{sample}b"],
            "correctness": [True, False],
            "predicted": ["4", None],
        }
        for sample, lengths in enumerate([[30, -1], [16384, 31]])
    ],
    "answers": ["4", "1/2"],
    "aggregate_stats": {},
    "instruction": "",
}
STAGE_3 = "all_layer_thinking_length_steering_results/thinking_length"
STAGE_6 = "ThinkEdit_model_evaluation_results"


def saved(value):
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def published():
    texts = {
        f"responses/{MODEL}_gsm8k.json": RESPONSES,
        f"gsm8k_{STAGE_3}_mlp/{MODEL}/-0.08.json": STEERED,
        f"gsm8k_{STAGE_3}_attn/{MODEL}/0.0.json": SKIPPED,
        f"math_level5_{STAGE_3}_attn/{MODEL}/0.01.json": STEERED,
        f"gsm8k_layerwise_thinking_length_steering_results/thinking_length_attn/{MODEL}/12_-1.0.json": STEERED,
        f"{STAGE_6}/mmlu_elementary_math/{MODEL}/instruction_/results_samples10.json": EVALUATION,
        f"{STAGE_6}/gsm8k/{MODEL}/instruction_Be brief./results_samples10.json": EVALUATION,
    }
    files = {name: json.dumps(value).encode() for name, value in texts.items()}
    files |= {
        f"directions/{MODEL}_thinking_length_direction_gsm8k_{site}.pt": saved(DIRECTION) for site in ("attn", "mlp")
    }
    return files | {f"responses/{MODEL}_thinking_length_distribution_gsm8k.png": b"png", "notes.json": b"{"}


def unpacked(folder, files, prefix=""):
    for name, data in files.items():
        path = folder / prefix / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def zipped(path, files, prefix=""):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        for name, data in files.items():
            archive.writestr(prefix + name, data)
    return path


WRITTEN = {
    f"responses/{MODEL}/gsm8k.jsonl",
    f"directions/{MODEL}/thinking_length_attn.safetensors",
    f"directions/{MODEL}/thinking_length_mlp.safetensors",
    f"steering/{MODEL}/gsm8k/thinking_length_mlp/-0.08.jsonl",
    f"steering/{MODEL}/gsm8k/thinking_length_attn/0.0.jsonl",
    f"steering/{MODEL}/math_level5_140/thinking_length_attn/0.01.jsonl",
    f"steering/{MODEL}/gsm8k/thinking_length_attn/-1.0.layer12.jsonl",
    f"evaluations/{MODEL}/mmlu_elementary_math/default.jsonl",
}


@pytest.mark.parametrize("prefix", ["", "ThinkEdit/"])
def test_folder_and_zip_give_the_same_artifacts(tmp_path, prefix):
    from_folder, from_zip = tmp_path / "a", tmp_path / "b"
    import_upstream(unpacked(tmp_path / "up", published(), prefix), from_folder)
    written = import_upstream(zipped(tmp_path / "up.zip", published(), prefix), from_zip)
    names = {path.relative_to(from_zip).as_posix() for path in written}
    assert names > WRITTEN and len(names) == len(WRITTEN) + 1 == len(written)
    for name in names:
        assert (from_folder / name).read_bytes() == (from_zip / name).read_bytes()
        manifest = read_json(from_zip / f"{name}.run.json")
        assert manifest["finished"] and manifest["settings"]["imported_from"].startswith("ThinkEdit ")


def test_responses_lose_the_begin_token_that_upstream_counted(tmp_path):
    import_upstream(unpacked(tmp_path / "up", published()), tmp_path)
    closed, opened, none = read_records(tmp_path / f"responses/{MODEL}/gsm8k.jsonl")
    assert (closed.status, closed.thinking_tokens, closed.length, closed.finish_reason) == ("closed", 6, 6, "stop")
    assert (closed.question, closed.response, closed.prompt) == ("2 + 2?", THOUGHT, "<｜User｜>2 + 2?<｜Assistant｜>")
    assert (opened.status, opened.thinking_tokens, opened.length) == ("capped", None, 4096)
    assert (opened.finish_reason, opened.forced_at) == ("length", None)
    assert (none.status, none.thinking_tokens, none.length, none.response_tokens) == ("no_think", None, None, 0)
    for record in (closed, opened, none):
        assert record.token_ids == () and record.prediction is None and record.reference == "" and not record.correct
    assert len({record.id for record in (closed, opened, none)}) == 3


def test_steering_results_keep_length_verdict_and_where_the_answer_was_forced(tmp_path):
    import_upstream(unpacked(tmp_path / "up", published()), tmp_path)
    first, capped, last = read_records(tmp_path / f"steering/{MODEL}/gsm8k/thinking_length_mlp/-0.08.jsonl")
    assert [record.length for record in (first, capped, last)] == [40, 8192, 12]
    assert [record.correct for record in (first, capped, last)] == [True, False, True]
    assert (capped.status, capped.forced_at, capped.finish_reason) == ("capped", 8192, "length")
    # On MATH level 5 the budget is twice as large: the same length is a closed chain.
    records = read_records(tmp_path / f"steering/{MODEL}/math_level5_140/thinking_length_attn/0.01.jsonl")
    assert [record.status for record in records] == ["closed"] * 3
    # Its rows were selected, so their numbers are not those of our ids; those of GSM8K are.
    assert [record.id for record in records] == [f"math_level5_140-upstream-{row}" for row in range(3)]
    assert last.id == "gsm8k-test-2"


def test_a_skipped_sample_does_not_shift_the_others(tmp_path):
    import_upstream(unpacked(tmp_path / "up", published()), tmp_path)
    first, skipped, last = read_records(tmp_path / f"steering/{MODEL}/gsm8k/thinking_length_attn/0.0.jsonl")
    assert (first.response, first.correct, first.length) == ("a", True, 40)
    assert (skipped.response, skipped.correct, skipped.status, skipped.length) == ("", False, "no_think", None)
    assert (last.response, last.correct, last.length) == ("c", False, 12)


def test_evaluations_are_one_record_per_question_and_sample(tmp_path):
    import_upstream(unpacked(tmp_path / "up", published()), tmp_path)
    records = read_records(tmp_path / f"evaluations/{MODEL}/mmlu_elementary_math/default.jsonl")
    assert [(record.sample, record.response) for record in records] == [(0, "0a"), (0, "0b"), (1, "1a"), (1, "1b")]
    assert records[0].id == records[2].id != records[1].id
    assert [record.status for record in records] == ["closed", "no_think", "capped", "closed"]
    assert [record.prediction for record in records] == ["4", None, "4", None]
    assert [record.reference for record in records] == ["4", "1/2", "4", "1/2"]
    assert {record.kind for record in records} == {"choice"}


def test_directions_become_float32_without_the_middle_axis(tmp_path):
    import_upstream(unpacked(tmp_path / "up", published()), tmp_path)
    tensors, metadata = read_safetensors(tmp_path / f"directions/{MODEL}/thinking_length_mlp.safetensors")
    assert list(tensors) == ["direction"] and tensors["direction"].dtype == torch.float32
    assert torch.equal(tensors["direction"], DIRECTION[:, 0].float())
    assert (metadata["method"], metadata["read_site"], metadata["model"]) == ("thinking_length_mlp", "block_out", MODEL)
    _, metadata = read_safetensors(tmp_path / f"directions/{MODEL}/thinking_length_attn.safetensors")
    assert metadata["read_site"] == "mid"


def test_a_second_import_changes_nothing_and_other_content_is_refused(tmp_path):
    source = unpacked(tmp_path / "up", published())
    written = import_upstream(source, tmp_path)
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in written]
    assert import_upstream(source, tmp_path) == written
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in written] == before
    (source / f"responses/{MODEL}_gsm8k.json").write_text(json.dumps(RESPONSES[:1]))
    with pytest.raises(InputError, match="was made otherwise"):
        import_upstream(source, tmp_path)


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_code_in_a_tensor_file_is_not_run(tmp_path):
    name = f"directions/{MODEL}_thinking_length_direction_gsm8k_attn.pt"
    for data in (saved(Payload(tmp_path / "run")), pickle.dumps(Payload(tmp_path / "run")), b"", b"junk"):
        with pytest.raises(InputError, match=r"gsm8k_attn\.pt is no tensor file, or holds code"):
            import_upstream(unpacked(tmp_path / "up", {name: data}), tmp_path)
        assert not (tmp_path / "run").exists()
    for value in (torch.zeros(3, 2, 5), {"direction": DIRECTION}):
        with pytest.raises(InputError, match=r"not a tensor \[num_layers, 1, hidden_size\]"):
            import_upstream(unpacked(tmp_path / "up", {name: saved(value)}), tmp_path)


@pytest.mark.parametrize(
    "name", ["../evil.json", "/etc/evil.json", "a/../../evil.json", "..\\evil.json", "C:\\evil.json"]
)
def test_a_zip_with_a_member_that_leads_out_is_refused_whole(tmp_path, name):
    source = zipped(tmp_path / "up.zip", published() | {name: b"{}"})
    with pytest.raises(InputError, match="leads out of the zip"):
        import_upstream(source, tmp_path / "art")
    assert not (tmp_path / "art").exists()


def test_a_zip_with_a_symbolic_link_is_refused(tmp_path):
    source = zipped(tmp_path / "up.zip", published())
    link = zipfile.ZipInfo(f"responses/{MODEL}x_gsm8k.json")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="leads out of the zip"):
        import_upstream(source, tmp_path / "art")


RESPONSES_FILE = f"responses/{MODEL}_gsm8k.json"
STEERED_FILE = f"gsm8k_{STAGE_3}_attn/{MODEL}/0.0.json"
EVALUATION_FILE = f"{STAGE_6}/gsm8k/{MODEL}/instruction_/results_samples10.json"


def changed(name, *values):
    """The second sample of an evaluation with other values in a column."""
    first, second = EVALUATION["sample_results"]
    return EVALUATION | {"sample_results": [first, second | {name: list(values)}]}


LAYOUTS = [
    (RESPONSES_FILE, 5, "the file is 5, not a list"),
    (RESPONSES_FILE, [], "it holds no response"),
    (RESPONSES_FILE, [RESPONSES[0], 1], r"\[1\] is 1, not an object"),
    (RESPONSES_FILE, [{"question": "?"}], r"\[0\] has no 'thinking_length'"),
    *(
        (RESPONSES_FILE, [RESPONSES[0] | {field: value}], rf"\[0\]\.{field} is .*, not text")
        for field in ("question", "response")
        for value in ({"q": "1+1?"}, None, 5, ["a"], True, "\ud800")
    ),
    *(
        (
            RESPONSES_FILE,
            [RESPONSES[1], RESPONSES[0] | {"thinking_length": value}],
            r"\[1\]\.thinking_length is .*, not a",
        )
        for value in (0, 2, -5, -2, 6.5, True, None, "7", [7], float("nan"), float("inf"), 10**30)
    ),
    (
        RESPONSES_FILE,
        [RESPONSES[0] | {"thinking_length": -1}],
        r"-1, not what goes with .* a whole <think>\.\.\.</think>",
    ),
    (RESPONSES_FILE, [RESPONSES[2] | {"thinking_length": 7}], "7, not what goes with a response that has no whole"),
    (STEERED_FILE, [], r"the file is \[\], not an object"),
    (
        STEERED_FILE,
        STEERED | {"responses": ["a", "b"]},
        "it has 3 think_lengths, 2 responses, 3 correctness: their numbers must agree",
    ),
    (STEERED_FILE, SKIPPED | {"correctness": [True]}, "2 responses, 1 correctness"),
    (STEERED_FILE, STEERED | {"responses": [1, 2, 3]}, r"responses\[0\] is 1, not text"),
    (STEERED_FILE, STEERED | {"responses": "abc"}, "responses is 'abc', not a list"),
    (
        STEERED_FILE,
        STEERED | {"think_lengths": [40, 0, 12]},
        r"think_lengths\[1\] is 0, not a whole number of 1 or more",
    ),
    (STEERED_FILE, STEERED | {"think_lengths": [40, -3, 12]}, r"think_lengths\[1\] is -3"),
    (STEERED_FILE, STEERED | {"correctness": [True, None, True]}, r"correctness\[1\] is None, not true or false"),
    (STEERED_FILE, STEERED | {"correctness": [True, "no", True]}, r"correctness\[1\] is 'no', not true or false"),
    (EVALUATION_FILE, EVALUATION | {"answers": ["4"]}, r"sample_results\[0\] has 1 answers, 2 think_lengths"),
    (EVALUATION_FILE, EVALUATION | {"answers": ["4", None]}, r"answers\[1\] is None, not text"),
    (EVALUATION_FILE, EVALUATION | {"answers": ["4", True]}, r"answers\[1\] is True, not text"),
    (EVALUATION_FILE, EVALUATION | {"sample_results": []}, "it holds no response"),
    (EVALUATION_FILE, EVALUATION | {"sample_results": {}}, r"sample_results is \{\}, not a list"),
    (EVALUATION_FILE, changed("predicted", "4", ["4"]), r"sample_results\[1\]\.predicted\[1\] is \['4'\], not text"),
    (EVALUATION_FILE, changed("predicted", "4", float("inf")), r"predicted\[1\] is inf, not a finite number"),
    (EVALUATION_FILE, changed("response_texts", "4", None), r"response_texts\[1\] is None, not text"),
    (EVALUATION_FILE, changed("think_lengths", 5, False), r"think_lengths\[1\] is False, not a whole number"),
    (EVALUATION_FILE, changed("correctness", 1, 2), r"correctness\[1\] is 2, not true or false"),
]


@pytest.mark.parametrize(("name", "value", "why"), LAYOUTS)
def test_a_value_of_another_type_is_named_with_its_file_and_place(tmp_path, name, value, why):
    source = unpacked(tmp_path / "up", {name: json.dumps(value).encode()})
    with pytest.raises(InputError, match=f"{Path(name).name} is not laid out as upstream writes it: .*{why}") as error:
        import_upstream(source, tmp_path / "art")
    assert "\n" not in str(error.value) and not (tmp_path / "art").exists()


def responses_of(tmp_path, *items, **reading):
    import_upstream(unpacked(tmp_path / "up", {RESPONSES_FILE: json.dumps(items).encode()}), tmp_path, **reading)
    return read_records(tmp_path / f"responses/{MODEL}/gsm8k.jsonl")


def test_whole_numbers_may_be_written_as_floats(tmp_path):
    first, second = responses_of(tmp_path, RESPONSES[0] | {"thinking_length": 7.0}, RESPONSES[2])
    assert (first.thinking_tokens, type(first.thinking_tokens)) == (6, int) and second.status == "no_think"
    value = changed("think_lengths", 16384.0, -1.0)
    value["sample_results"][0]["predicted"] = [4, 0.5]
    import_upstream(unpacked(tmp_path / "e", {EVALUATION_FILE: json.dumps(value).encode()}), tmp_path)
    records = read_records(tmp_path / f"evaluations/{MODEL}/gsm8k/default.jsonl")
    assert [record.length for record in records] == [30, None, 16384, None]
    assert [record.prediction for record in records] == ["4", "0.5", "4", None]


def test_the_text_tells_whether_a_long_chain_was_closed(tmp_path):
    """Budgets are those of upstream's scripts; a run may have had another."""
    closed, opened, longer = responses_of(
        tmp_path,
        RESPONSES[0] | {"thinking_length": 4098},
        RESPONSES[1],
        RESPONSES[0] | {"thinking_length": 5000},
    )
    assert [(one.status, one.thinking_tokens) for one in (closed, longer)] == [("closed", 4097), ("closed", 4999)]
    assert closed.finish_reason == longer.finish_reason == "stop"
    assert (opened.status, opened.length) == ("capped", 4999)  # the budget was this much at least


FORCED = "\n</think>\n\nYeah, I think that's right.\n\n**Final Answer**\n4"


@pytest.mark.parametrize(
    ("text", "length", "status", "forced_at"),
    [
        (THOUGHT, 20000, "closed", None),  # longer than upstream's 8192
        (THOUGHT, 8192, "closed", None),
        ("<think>\nTwo" + FORCED, 8192, "capped", 8192),  # what was forced closes nothing
        ("<think>\nTwo" + FORCED, 2048, "capped", 2048),  # in a run of a smaller budget
        ("Two" + FORCED, 300, "capped", 300),
        ("<think>\nTwo", 2048, "capped", 2048),
        ("4", 8192, "capped", 8192),  # without delimiters the budget tells
        ("4", 8191, "closed", None),
        ("Two.</think>4", 7, "no_think", None),
    ],
)
def test_the_text_tells_how_steered_thinking_ended_and_the_file_how_long_it_was(
    tmp_path, text, length, status, forced_at
):
    value = STEERED | {"responses": [THOUGHT, text, THOUGHT], "think_lengths": [9, length, 9]}
    import_upstream(unpacked(tmp_path / "up", {STEERED_FILE: json.dumps(value).encode()}), tmp_path)
    record = read_records(tmp_path / f"steering/{MODEL}/gsm8k/thinking_length_attn/0.0.jsonl")[1]
    assert (record.status, record.forced_at) == (status, forced_at)
    assert record.length == (None if status == "no_think" else length)
    assert record.thinking_tokens == (length if status == "closed" else None)


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tokenizer(models.resolve("tiny-reasoner", Path("none")))


def item(text, length=-1):
    return {"question": "2 + 2?", "response": text, "thinking": "", "thinking_length": length}


INSIDE = [item("Two.\n</think>\n\n4"), item("Two, and on"), item(THOUGHT, 7)]


def test_texts_that_begin_inside_the_thinking_are_refused_with_the_flag_that_reads_them(tmp_path):
    with pytest.raises(InputError, match=r"gsm8k.json: 2 of 4 responses hold </think> without .* --opened_in_prompt"):
        responses_of(tmp_path, *INSIDE, INSIDE[0])
    assert [one.status for one in responses_of(tmp_path, INSIDE[0], INSIDE[2])] == ["no_think", "closed"]
    steered = STEERED | {"responses": [INSIDE[0]["response"]] * 3, "think_lengths": [5, 5, 5]}
    with pytest.raises(InputError, match=r"0.0.json: 3 of 3 responses hold </think> without"):
        import_upstream(unpacked(tmp_path / "s", {STEERED_FILE: json.dumps(steered).encode()}), tmp_path)


def test_thinking_that_the_prompt_opened_is_read_with_the_tokens_of_the_model(tmp_path, tokenizer):
    template = texts.opened(TEMPLATES["deepseek"])
    reading = {"template": template, "tokenizer": tokenizer, "settings": {"tokenizer": "t"}}
    closed, opened, repeated = responses_of(tmp_path, *INSIDE, **reading)
    assert closed.prompt == opened.prompt == "<｜User｜>2 + 2?<｜Assistant｜><think>\n"
    assert repeated.prompt == "<｜User｜>2 + 2?<｜Assistant｜>"  # the text has the delimiter itself
    assert [one.status for one in (closed, opened, repeated)] == ["closed", "capped", "closed"]
    reader = Reader.of(template, tokenizer)
    for record in (closed, opened):
        ids, found = reader.read(record)  # InputError if it reads otherwise than it was recorded
        assert tokenizer.decode(ids[found.start :]).startswith("<think>\nTwo")
    assert Reader.of(TEMPLATES["deepseek"], tokenizer).read(repeated)[1].tokens == closed.thinking_tokens
    assert tokenizer.decode(closed.token_ids) == closed.response + tokenizer.eos_token
    assert closed.response_tokens == len(closed.token_ids) and opened.length == len(opened.token_ids)
    assert run_settings(tmp_path / f"responses/{MODEL}/gsm8k.jsonl")["tokenizer"] == "t"


def test_forced_answers_begin_where_their_text_does(tmp_path, tokenizer):
    value = STEERED | {"responses": ["<think>\nTwo" + FORCED, THOUGHT, ""], "think_lengths": [8192, 7, -1]}
    import_upstream(
        unpacked(tmp_path / "up", {STEERED_FILE: json.dumps(value).encode()}), tmp_path, tokenizer=tokenizer
    )
    forced, closed, empty = read_records(tmp_path / f"steering/{MODEL}/gsm8k/thinking_length_attn/0.0.jsonl")
    assert tokenizer.decode(forced.token_ids[forced.forced_at :]) == FORCED
    assert (forced.status, forced.length, forced.finish_reason) == ("capped", forced.forced_at, "length")
    assert closed.forced_at is None and closed.thinking_tokens < closed.response_tokens
    assert empty.token_ids == () and empty.status == "no_think"
    reader = Reader.of(TEMPLATES["deepseek"], tokenizer)
    assert reader.read(forced)[1].status == "capped" and reader.read(closed)[1].status == "closed"


def test_a_tokenizer_that_does_not_give_the_text_back_is_refused(tmp_path):
    words = Tokenizer(WordLevel({"Two": 0, "[unk]": 1}, unk_token="[unk]"))
    words.add_special_tokens(["<think>", "</think>", "<s>"])
    other = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", unk_token="[unk]")
    with pytest.raises(InputError, match="gsm8k-train-0 sample 0: the tokenizer does not give its text back"):
        responses_of(tmp_path, RESPONSES[0], tokenizer=other)
    assert not (tmp_path / "responses").exists()


def call(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["import_upstream", *map(str, flags)])
    script.main()


def test_the_script_reads_opened_prompts_and_overwrites_what_it_wrote(tmp_path, monkeypatch, capsys):
    source = unpacked(tmp_path / "up", {RESPONSES_FILE: json.dumps(RESPONSES).encode()})
    here = (source, "--artifacts", tmp_path / "art")
    call(monkeypatch, *here)
    flags = (*here, "--model", "tiny-reasoner", "--opened_in_prompt")
    with pytest.raises(InputError, match="Use --overwrite to make it anew"):
        call(monkeypatch, *flags)
    call(monkeypatch, *flags, "--overwrite")
    records = read_records(tmp_path / f"art/responses/{MODEL}/gsm8k.jsonl")
    assert [record.status for record in records] == ["closed", "capped", "capped"] and records[2].token_ids
    with pytest.raises(SystemExit):
        call(monkeypatch, *here, "--opened_in_prompt")
    assert "--opened_in_prompt and --template need --model" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"holds artifacts, .*leave out --model and --overwrite"):
        call(monkeypatch, tmp_path / "art", "--artifacts", tmp_path / "new", "--overwrite")


def test_the_most_unusual_values_that_are_read_make_a_report(tmp_path, monkeypatch):
    sample = {
        "think_lengths": [2**53, 1, 1.0, -1],
        "response_texts": ["", "<think>", "<think></think>", "</think>"],
        "correctness": [1, 0, True, False],
        "predicted": [0.5, "", None, 10**30],
    }
    value = {"sample_results": [sample] * 2, "answers": [1, "", 0.5, "x" * 99]}
    source = unpacked(tmp_path / "up", {EVALUATION_FILE: json.dumps(value).encode()})
    import_upstream(source, tmp_path / "art")
    monkeypatch.setattr(sys, "argv", ["analyze_results.py", "--artifacts", str(tmp_path / "art")])
    analyze_results.main()
    table = read_json(tmp_path / "art/reports/length_overall.json")["rows"]
    assert table[0]["gsm8k"]["value"] == pytest.approx((2**53 + 1) / 2)  # an empty chain has no length


def test_two_files_that_would_become_one_artifact_are_refused(tmp_path):
    data = json.dumps(EVALUATION).encode()
    other = EVALUATION_FILE.replace("samples10", "samples5")
    with pytest.raises(InputError, match=r"results_samples10\.json and .*results_samples5\.json would both become"):
        import_upstream(unpacked(tmp_path / "up", {EVALUATION_FILE: data, other: data}), tmp_path, overwrite=True)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (torch.full((3, 1, 5), torch.nan), "values that are not finite"),
        (torch.ones(3, 1, 5, dtype=torch.int64), "torch.int64, not floating point"),
        (torch.ones(0, 1, 5), r"\[0, 1, 5\], not a tensor"),
    ],
)
def test_a_direction_that_nothing_could_read_is_refused(tmp_path, value, why):
    name = f"directions/{MODEL}_thinking_length_direction_gsm8k_attn.pt"
    with pytest.raises(InputError, match=f"gsm8k_attn.pt holds {why}"):
        import_upstream(unpacked(tmp_path / "up", {name: saved(value)}), tmp_path / "art")
    assert not (tmp_path / "art").exists()


def test_a_source_without_anything_known_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no file that upstream publishes"):
        import_upstream(unpacked(tmp_path / "up", {"responses/readme.txt": b""}), tmp_path)
    (tmp_path / "not.zip").write_text("no")
    for name in ("not.zip", "absent"):
        with pytest.raises(InputError, match=f"{name} is neither a folder nor a whole zip"):
            import_upstream(tmp_path / name, tmp_path)
    for weight in ("x", "nan", "inf"):
        with pytest.raises(InputError, match=f"'{weight}' is no weight"):
            import_upstream(
                unpacked(tmp_path / weight, {f"gsm8k_{STAGE_3}_attn/{MODEL}/{weight}.json": b"{}"}), tmp_path
            )
