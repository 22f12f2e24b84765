"""The seven stages as a user runs them: a small pipeline on the embedded model, killed, resumed, repeated, misused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import generate_responses
import steer_eval
from thinksteer import store
from thinksteer.records import InputError

ROOT = Path(__file__).parent.parent
MODEL, EDITED = "tiny-reasoner", "ThinkEdit-tiny-reasoner"
ASKED = ("--n_questions", "48", "--max_length", "300")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def start(script: str, *flags: object) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / script), *map(str, flags)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def run(script: str, *flags: object) -> str:
    process = start(script, *flags)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def fail(script: str, *flags: object) -> str:
    """The one line on stderr of a command that must fail."""
    process = start(script, *flags)
    out, err = process.communicate()
    assert process.returncode == 2, out + err
    assert "Traceback" not in err
    return err.splitlines()[-1]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Artifacts of one run of stages 1 to 7."""
    root = tmp_path_factory.mktemp("artifacts")
    here = ("--artifacts", root)
    run("generate_responses.py", *here, *ASKED)
    run("extract_directions.py", *here, "--min_examples", 5)
    run("steer_eval.py", *here, *ASKED, "--direction_weight", -0.4, 0, 0.2)
    run("find_short_heads.py", *here, "--min_examples", 5)
    run("edit_weights.py", *here)
    run("edit_weights.py", *here, "--control_heads", "random", "--seed", 1, "--name", f"{EDITED}.random-heads-1")
    models = (MODEL, EDITED, f"{EDITED}.random-heads-1")
    run("evaluate_models.py", *here, *ASKED, "--n_samples", 2, "--model", *models)
    run("analyze_results.py", *here)
    return root


def test_every_stage_leaves_what_the_next_one_reads(root):
    assert len(store.read_records(store.responses_path(root, MODEL, "arithmetic"))) == 48
    assert store.read_direction(store.direction_path(root, MODEL, "thinking_length_mlp")).isfinite().all()
    summary = store.read_json(store.steering_summary_path(root, MODEL, "arithmetic", "thinking_length_attn"))
    assert [point["weight"] for point in summary["points"]] == [-0.4, 0.0, 0.2]
    assert len(store.read_records(store.evaluation_path(root, EDITED, "arithmetic", ""))) == 96
    page = (store.reports_path(root) / "report.html").read_text(encoding="utf-8")
    assert EDITED in page and "data:image/png" in page and "<script" not in page


def test_steering_towards_short_thinking_shortens_it(root):
    summary = store.read_json(store.steering_summary_path(root, MODEL, "arithmetic", "thinking_length_attn"))
    lengths = [point["mean_length"] for point in summary["points"]]
    assert lengths[0] < lengths[1] < lengths[2]


def test_weight_zero_is_the_unsteered_model(root):
    steered = store.read_records(store.steering_path(root, MODEL, "arithmetic", "thinking_length_attn", 0.0, None))
    plain = store.read_records(store.evaluation_path(root, MODEL, "arithmetic", ""))
    tokens = {record.id: record.token_ids for record in plain if record.sample == 0}
    assert all(record.token_ids == tokens[record.id] for record in steered)


def test_only_the_chosen_columns_are_edited(root):
    heads = store.read_json(store.heads_path(root, MODEL, "thinking_length_attn"))["heads"]
    before = load_file(ROOT / "thinksteer" / "tiny_reasoner" / "model.safetensors")
    after = load_file(store.model_path(root, EDITED) / "model.safetensors")
    chosen: dict[str, list[int]] = {}
    for head in heads:
        chosen.setdefault(f"model.layers.{head['layer']}.self_attn.o_proj.weight", []).append(head["head"])
    direction = store.read_direction(store.direction_path(root, MODEL, "thinking_length_attn"))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        changed = (
            {int(column) // 16 for column in (weight != after[name]).any(0).nonzero()} if weight.ndim > 1 else set()
        )
        assert changed == set(chosen.get(name, [])), name
        for head in chosen.get(name, []):
            toward = direction[int(name.split(".")[2])]
            block = slice(16 * head, 16 * head + 16)
            left = (toward @ after[name][:, block]).norm() / (toward @ weight[:, block]).norm()
            assert left < 1e-6


def test_a_finished_stage_computes_nothing_again_and_refuses_other_settings(root):
    path = store.responses_path(root, MODEL, "arithmetic")
    before = path.stat().st_mtime_ns
    run("generate_responses.py", "--artifacts", root, *ASKED)
    assert path.stat().st_mtime_ns == before
    error = fail("generate_responses.py", "--artifacts", root, *ASKED, "--seed", 7)
    assert "seed: 0 -> 7" in error or "--overwrite" in error
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "script, folder", [("generate_responses.py", "responses"), ("evaluate_models.py", "evaluations")]
)
def test_a_killed_stage_goes_on_where_it_stopped(script, folder, tmp_path):
    flags = ("--model", MODEL, "--n_questions", 400, "--n_samples", 1, "--max_length", 300)

    def records(root: Path) -> list[str]:
        [path] = (root / folder).rglob("*.jsonl")
        return sorted(path.read_text(encoding="utf-8").splitlines())

    process = start(script, "--artifacts", tmp_path / "killed", *flags)
    while not any((tmp_path / "killed").rglob("*.jsonl")) or len(records(tmp_path / "killed")) < 50:
        time.sleep(0.02)
        assert process.poll() is None, "finished before it was killed"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 50 <= len(records(tmp_path / "killed")) < 400

    for root in ("killed", "undisturbed"):
        run(script, "--artifacts", tmp_path / root, *flags)
    killed = [json.loads(line) for line in records(tmp_path / "killed")]
    assert len({(record["id"], record["sample"]) for record in killed}) == len(killed) == 400
    assert records(tmp_path / "killed") == records(tmp_path / "undisturbed")


def test_shards_together_are_the_whole(root, tmp_path):
    for shard in ("0/2", "1/2"):
        run("generate_responses.py", "--artifacts", tmp_path, *ASKED, "--shard", shard)
    together = store.read_records(store.responses_path(tmp_path, MODEL, "arithmetic"))
    alone = store.read_records(store.responses_path(root, MODEL, "arithmetic"))
    assert sorted(together, key=lambda record: record.id) == sorted(alone, key=lambda record: record.id)


def test_a_data_set_smaller_than_a_default_is_used_whole(tmp_path, monkeypatch, capsys):
    """Stages 1 and 3 take the paper's 2000 and 200 questions unless a number is given. In this process: it is fast."""
    file = tmp_path / "few.jsonl"
    file.write_text("".join(json.dumps({"question": f"{n} + 1?", "answer": n + 1}) + "\n" for n in range(3)))
    asked = ("--artifacts", tmp_path, "--dataset", "few", "--data_file", file, "--max_length", 8)

    def printed(stage, *flags) -> str:
        monkeypatch.setattr(sys, "argv", [stage.__name__, *map(str, (*asked, *flags))])
        stage.main()
        return capsys.readouterr().out

    assert f"{file}: 3 questions of few, all are used\n" in printed(generate_responses)
    path = store.responses_path(tmp_path, MODEL, "few")
    assert len(store.read_records(path)) == 3 and store.run_settings(path)["n_questions"] == 3
    before = path.stat().st_mtime_ns
    printed(generate_responses)
    assert "all are used" not in printed(generate_responses, "--n_questions", 3)  # the same run
    assert path.stat().st_mtime_ns == before
    for number in (4, 2000):
        with pytest.raises(InputError, match=rf"has 3 questions of few, not {number} \(--n_questions\)"):
            printed(generate_responses, "--n_questions", number)
    direction = store.direction_path(tmp_path, MODEL, "thinking_length_attn")
    store.write_safetensors(direction, {"direction": torch.randn(6, 128)}, {"method": "thinking_length_attn"})
    assert "3 questions of few, all are used" in printed(steer_eval, "--direction_weight", 0.1)


def test_bad_input_gets_one_line_that_says_what_to_do(root, tmp_path):
    here = ("--artifacts", root)
    assert "no such data set" in fail("generate_responses.py", *here, "--dataset", "gsm9k")
    assert 'no model "tiny"' in fail("find_short_heads.py", *here, "--model", "tiny")
    assert "is missing" in fail("extract_directions.py", "--artifacts", tmp_path)
    assert "blocks to steer are 0 to 5" in fail("steer_eval.py", *here, "--layer", "99")
    assert "edited model already" in fail("edit_weights.py", *here, "--model", EDITED)
    assert "upstream published none" in fail("edit_weights.py", *here, "--heads", "published")
    assert "not evaluated" in fail("analyze_results.py", *here, "--models", "other")


def test_a_direction_of_another_model_is_refused(root, tmp_path):
    for name in ("heads", "directions", "responses"):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / "directions").unlink()
    path = store.direction_path(tmp_path, MODEL, "thinking_length_attn")
    store.write_safetensors(path, {"direction": torch.randn(6, 64)}, {"method": "thinking_length_attn"})
    assert "come from another model" in fail("edit_weights.py", "--artifacts", tmp_path)
    assert not store.model_path(tmp_path, EDITED).exists()
