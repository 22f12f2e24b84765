import io
import json
import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

from thinksteer.records import InputError
from thinksteer.store import read_json, read_records, read_safetensors
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (f"responses/{MODEL}_gsm8k.json", [{"question": "?"}]),
        (f"responses/{MODEL}_gsm8k.json", [RESPONSES[0] | {"response": None}]),
        (f"responses/{MODEL}_gsm8k.json", 5),
        (f"gsm8k_{STAGE_3}_attn/{MODEL}/0.0.json", STEERED | {"responses": ["a", "b"]}),
        (f"gsm8k_{STAGE_3}_attn/{MODEL}/0.0.json", SKIPPED | {"correctness": [True]}),
        (f"gsm8k_{STAGE_3}_attn/{MODEL}/0.0.json", STEERED | {"responses": [1, 2, 3]}),
        (
            f"{STAGE_6}/gsm8k/{MODEL}/instruction_/results_samples10.json",
            EVALUATION | {"answers": ["4"]},
        ),
    ],
)
def test_a_file_of_another_layout_is_named(tmp_path, name, value):
    source = unpacked(tmp_path / "up", {name: json.dumps(value).encode()})
    with pytest.raises(InputError, match=f"{Path(name).name} is not laid out as upstream writes it"):
        import_upstream(source, tmp_path)


def test_a_source_without_anything_known_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no file that upstream publishes"):
        import_upstream(unpacked(tmp_path / "up", {"responses/readme.txt": b""}), tmp_path)
    (tmp_path / "not.zip").write_text("no")
    for name in ("not.zip", "absent"):
        with pytest.raises(InputError, match=f"{name} is neither a folder nor a whole zip"):
            import_upstream(tmp_path / name, tmp_path)
    with pytest.raises(InputError, match="'x' is no weight"):
        import_upstream(unpacked(tmp_path / "w", {f"gsm8k_{STAGE_3}_attn/{MODEL}/x.json": b"{}"}), tmp_path)
