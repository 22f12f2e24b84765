"""Archives over local HTTP, whole, torn, changed and hostile; and the paper's tables from imported results."""

import io
import json
import math
import os
import pickle
import random
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from gdown.exceptions import FileURLRetrievalError

import analyze_results
from scripts import import_upstream as import_upstream_script
from tests.test_archive import under, zipped
from thinksteer import store
from thinksteer.archive import fetch
from thinksteer.records import InputError
from thinksteer.upstream import ARCHIVES, import_upstream

ROOT = Path(__file__).parent.parent
BASE, EDITED = "deepseek-qwen-1.5b", "ThinkEdit-deepseek-qwen-1.5b"
MODEL_FILE = f"directions/{BASE}_thinking_length_direction_gsm8k_attn.pt"


class Server(ThreadingHTTPServer):
    """Serves `files`; sends only the first `cut` bytes of a body if that is set; knows ranges if `ranges` is."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cut: int | None = None
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []  # path, range

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Server = self.server
        data, wanted = server.files.get(self.path[1:]), self.headers["Range"]
        server.asked.append((self.path, wanted))
        if data is None:
            self.send_error(404)
            return
        tag = f'"{hash(data)}"'
        start = 0
        if wanted and server.ranges and self.headers.get("If-Range", tag) == tag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("ETag", tag)
        self.end_headers()
        with suppress(ConnectionError):  # of a client that asks anew
            self.wfile.write(data[start : server.cut])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def call(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(ROOT / "scripts" / script), *map(str, arguments)]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def refused(script: str, *arguments: object) -> str:
    """The one line on stderr of a command that must fail."""
    done = call(script, *arguments)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def archive(files: dict[str, bytes]) -> bytes:
    return zipped(io.BytesIO(), files).getvalue()


def saved(value: object) -> bytes:
    torch.save(value, stream := io.BytesIO())
    return stream.getvalue()


CUT = 1 << 20
PUBLISHED = {
    f"responses/{BASE}_gsm8k.json": json.dumps(
        [{"question": "?", "response": "<think>\n\n</think>", "thinking": "", "thinking_length": 4}]
    ).encode(),
    MODEL_FILE: saved(torch.ones(2, 1, 3, dtype=torch.bfloat16)),
    "noise": random.Random(0).randbytes(3 << 20),  # what is downloaded is kept in blocks of half a MiB
}


def test_a_download_that_was_cut_is_continued_then_imported_and_not_fetched_again(server, tmp_path):
    server.files["T.zip"], server.cut = archive(PUBLISHED), CUT
    arguments = ("--artifacts", tmp_path, "--url", server.url("T.zip"))
    assert "Download is incomplete" in refused("download_artifacts.sh", *arguments)
    assert [path.parent.name for path in tmp_path.rglob("*") if path.is_file()] == ["downloads"]  # the part
    server.cut = None
    done = call("download_artifacts.sh", *arguments)
    assert done.returncode == 0, done.stderr
    assert server.asked[-1] == ("/T.zip", f"bytes={CUT}-")
    [file] = tmp_path.glob("downloads/*.zip")
    assert file.read_bytes() == server.files["T.zip"]
    assert file.with_name(f"{file.name}.sha256").read_text() == f"{store.sha256(file)}  {file.name}\n"
    assert store.is_complete(store.responses_path(tmp_path, BASE, "gsm8k"))
    direction = store.read_direction(store.direction_path(tmp_path, BASE, "thinking_length_attn"))
    assert direction.tolist() == [[1.0] * 3] * 2
    server.asked.clear()
    assert call("download_artifacts.sh", *arguments).returncode == 0
    assert not server.asked


@pytest.mark.parametrize("change", ["no ranges", "another file", "a shorter file"])
def test_a_download_that_cannot_be_continued_begins_anew(server, tmp_path, change):
    server.files["T.zip"], server.cut = archive(PUBLISHED), CUT
    with pytest.raises(InputError, match="Run this again, it goes on"):
        fetch(server.url("T.zip"), tmp_path)
    server.cut, server.ranges = None, change != "no ranges"
    if change != "no ranges":
        size = (3 << 20) if change == "another file" else 10
        server.files["T.zip"] = archive(PUBLISHED | {"noise": random.Random(1).randbytes(size)})
    assert fetch(server.url("T.zip"), tmp_path).read_bytes() == server.files["T.zip"]
    assert not list(tmp_path.glob("*.part"))


def test_a_part_is_kept_while_the_server_is_out_of_reach(server, tmp_path):
    server.files["T.zip"], server.cut = archive(PUBLISHED), CUT
    for _ in range(2):
        with pytest.raises(InputError):
            fetch(server.url("T.zip"), tmp_path)
        server.files["T.zip"], whole = None, server.files["T.zip"]
        with pytest.raises(InputError, match="cannot be had"):
            fetch(server.url("T.zip"), tmp_path)
        [part] = tmp_path.glob("*.part")
        assert part.read_bytes() == whole[: server.cut]
        server.files["T.zip"], server.cut = whole, CUT + (1 << 20)


def test_a_file_that_is_not_as_recorded_is_refused(server, tmp_path):
    server.files["T.zip"] = archive(PUBLISHED)
    file = fetch(server.url("T.zip"), tmp_path / "downloads")
    with open(file, "r+b") as damaged:
        damaged.seek(100)
        damaged.write(b"!")
    error = refused("download_artifacts.sh", "--artifacts", tmp_path, "--url", server.url("T.zip"))
    assert "remove both and download again" in error and file.name in error
    assert [path.name for path in tmp_path.iterdir()] == ["downloads"]


def test_a_file_that_is_not_as_published_is_refused(server, tmp_path):
    server.files |= {"T.zip": archive(PUBLISHED), "T.zip.sha256": b"0" * 64 + b"  T.zip\n"}
    with pytest.raises(InputError, match=r"has sha256 .* not that of"):
        fetch(server.url("T.zip"), tmp_path)


def test_what_is_no_zip_is_not_kept(server, tmp_path):
    server.files["T.zip"] = b"<html>Sign in first</html>"
    with pytest.raises(InputError, match="is no whole zip file"):
        fetch(server.url("T.zip"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_google_drive_says_is_one_line(tmp_path, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise FileURLRetrievalError("Failed to retrieve file url:\n\n\tToo many users\n\tin 24 hours.")

    monkeypatch.setattr("gdown.download", refuse)
    with pytest.raises(InputError) as caught:
        fetch(ARCHIVES["v2"], tmp_path)
    assert "uc?id=135ttUxdNc4gQkmbZlpr3ecbhA3_392PE: Failed to retrieve file url: Too many users in 24" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def hostile(marker: Path) -> dict[str, bytes]:
    """Archives, each with one evil member beside good ones: of upstream's files and of our own."""
    ours = {"responses/m/a.jsonl": b"", "responses/m/a.jsonl.run.json": b"{}"}
    made = {}
    for kind, good in (("upstream", PUBLISHED), ("ours", ours)):
        for evil in ("../../escaped.json", str(marker)):
            made[f"{kind} {evil}"] = archive(good | {evil: b"{}"})
        link = zipfile.ZipInfo("responses/link")
        link.external_attr = 0o120777 << 16
        with zipfile.ZipFile(stream := io.BytesIO(archive(good)), "a") as appended:
            appended.writestr(link, str(marker))
        made[f"{kind} link"] = stream.getvalue()
    for form, data in (("zip", saved(Payload(marker))), ("bare", pickle.dumps(Payload(marker)))):
        made[f"upstream pickle {form}"] = archive({MODEL_FILE: data})
        made[f"ours pickle {form}"] = archive(ours | {"models/m/pytorch_model.bin": data})
    return made


def test_nothing_of_a_hostile_archive_is_run_or_written(server, tmp_path, monkeypatch):
    marker = tmp_path / "marker"
    archives = hostile(marker)
    for number, server.files["evil.zip"] in enumerate(archives.values()):
        root = tmp_path / str(number) / "artifacts"
        flags = ["--artifacts", str(root), "--url", server.url("evil.zip")]
        monkeypatch.setattr(sys, "argv", ["import_upstream.py", *flags])
        with pytest.raises(InputError, match=r"do not trust this file|holds code, which is not run"):
            import_upstream_script.main()
        assert [path.name for path in tmp_path.iterdir()] == [str(number)]
        assert [path.name for path in root.parent.iterdir()] == ["artifacts"]
        assert [path.name for path in root.iterdir()] == ["downloads"]
        shutil.rmtree(root.parent)


@pytest.mark.parametrize("kind", ["upstream ../../escaped.json", "upstream pickle zip", "ours link"])
def test_the_refusal_of_a_hostile_archive_is_one_line(server, tmp_path, kind):
    server.files["evil.zip"] = hostile(tmp_path / "marker")[kind]
    error = refused("download_artifacts.sh", "--artifacts", tmp_path / "artifacts", "--url", server.url("evil.zip"))
    assert "do not trust this file" in error or "holds code, which is not run" in error
    assert [path.name for path in tmp_path.iterdir()] == ["artifacts"]


def test_what_was_published_is_downloaded_by_others(server, tmp_path):
    path = store.responses_path(tmp_path / "mine", BASE, "gsm8k")
    import_upstream(zipped(tmp_path / "T.zip", PUBLISHED), tmp_path / "mine")
    path.with_name("half.jsonl").write_text("")
    done = call("publish_artifacts.sh", "--artifacts", tmp_path / "mine", tmp_path / "out.zip")
    assert done.returncode == 0 and f"left out: responses/{BASE}/half.jsonl" in done.stdout, done.stderr
    assert "is there already" in refused("publish_artifacts.sh", "--artifacts", tmp_path / "mine", tmp_path / "out.zip")
    server.files = {name: (tmp_path / name).read_bytes() for name in ("out.zip", "out.zip.sha256")}
    done = call("download_artifacts.sh", "--artifacts", tmp_path / "theirs", "--url", server.url("out.zip"))
    assert done.returncode == 0, done.stderr
    published = {name: data for name, data in under(tmp_path / "mine").items() if "half" not in name}
    assert {name: data for name, data in under(tmp_path / "theirs").items() if "downloads" not in name} == published


# The paper's tables. What upstream's evaluation writes, of invented results; 137 and 60 questions make shares of 5, 10
# and 20 % that are whole and that are not.
QUESTIONS = {"gsm8k": 137, "mmlu_elementary_math": 60, "MATH-500": 50, "MATH-level1": 43, "MATH-level5": 101}
SAMPLES, SHARES = 10, (5, 10, 20)
WITHOUT_THINKING = "MATH-level5"  # the dataset in which some responses have no thinking: length -1 in upstream's files


def results(model: str, dataset: str) -> dict:
    """One results_samples10.json; within a sample no two lengths are equal, as upstream's sort leaves ties open."""
    rng = random.Random(f"{model} {dataset}")
    n, samples = QUESTIONS[dataset], []
    for _ in range(SAMPLES):
        lengths = rng.sample(range(60, 9000), n)
        lengths[rng.randrange(n)] = 16384
        if dataset == WITHOUT_THINKING:
            for row in rng.sample(range(n), 7):
                lengths[row] = -1
        chances = [(0.6 if length < 1500 else 0.85) + (0.08 if model == EDITED else 0) for length in lengths]
        correct = [rng.random() < chance for chance in chances]
        samples.append(
            {
                "accuracy": sum(correct) / n,
                "avg_thinking_length": sum(lengths) / n,
                "think_lengths": lengths,
                "response_texts": [f"<think>\n{row}\n</think>\n\n\\boxed{{{row}}}" for row in range(n)],
                "correctness": correct,
                "predicted": [str(row) if right else None for row, right in enumerate(correct)],
            }
        )
    return {
        "sample_results": samples,
        "answers": [str(row) for row in range(n)],
        "aggregate_stats": {"accuracy": sum(one["accuracy"] for one in samples) / SAMPLES},
        "instruction": "",
    }


def expected(raw: dict) -> dict[str, float]:
    """The figures of tables A to D by the paper's definitions (methods A7), run by run, from upstream's raw JSON.

    One departure, stated in the README: responses without thinking have no length, so they are neither in the mean
    length nor among the shortest; upstream takes them as of length -1.
    """
    figures = {"A": 0.0, "B": 0.0} | {f"{table} {share}": 0.0 for table in "CD" for share in SHARES}
    thinking_in_all, tokens_in_all = 0, 0
    chosen_of = {share: [] for share in SHARES}
    for run in raw["sample_results"]:
        pairs = sorted(zip(run["think_lengths"], run["correctness"], strict=True))
        figures["A"] += run["accuracy"] / SAMPLES
        thinking = [(length, right) for length, right in pairs if length != -1]
        thinking_in_all += len(thinking)
        tokens_in_all += sum(length for length, _ in thinking)
        for share in SHARES:
            shortest = thinking[: math.floor(len(thinking) * share / 100)]
            figures[f"C {share}"] += sum(right for _, right in shortest) / len(shortest) / SAMPLES
            chosen_of[share] += [length for length, _ in shortest]
    figures["B"] = tokens_in_all / thinking_in_all
    for share, lengths in chosen_of.items():
        figures[f"D {share}"] = sum(lengths) / len(lengths)
    return figures


@pytest.fixture(scope="module")
def evaluated() -> dict[tuple[str, str], dict]:
    return {(model, dataset): results(model, dataset) for model in (BASE, EDITED) for dataset in QUESTIONS}


def rows(reports: Path, name: str) -> tuple[list[dict], list[list[str]]]:
    """A table's rows, as numbers from .json and as text from .md."""
    lines = [line for line in (reports / f"{name}.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    text = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return json.loads((reports / f"{name}.json").read_text())["rows"], text


def shows(cell: str, value: float, percent: bool) -> bool:
    """Whether a cell such as "92.3 [91.0, 93.5]" shows a share or a number of tokens, rounded."""
    scale, digit = (100, 0.1) if percent else (1, 1)
    return abs(float(cell.split()[0]) - scale * value) <= digit / 2 + 1e-9


def test_the_tables_of_imported_results_are_the_papers_in_every_cell(tmp_path, evaluated, monkeypatch):
    files = {
        f"ThinkEdit/ThinkEdit_model_evaluation_results/{dataset}/{model}/instruction_/results_samples10.json": raw
        for (model, dataset), raw in evaluated.items()
    }
    source = zipped(tmp_path / "T.zip", {name: json.dumps(raw).encode() for name, raw in files.items()})
    assert len(import_upstream(source, tmp_path / "artifacts")) == len(files) == 10
    monkeypatch.setattr(sys, "argv", ["analyze_results.py", "--artifacts", str(tmp_path / "artifacts")])
    analyze_results.main()
    reports = store.reports_path(tmp_path / "artifacts")
    wanted = {key: expected(raw) for key, raw in evaluated.items()}
    checked = 0
    for name, table in (("accuracy_overall", "A"), ("length_overall", "B")):
        numbers, texts = rows(reports, name)
        assert [row["model"] for row in numbers] == [BASE, EDITED]
        for row, text in zip(numbers, texts, strict=True):
            for dataset, cell in zip([key for key in row if key in QUESTIONS], text[2:], strict=True):
                value = wanted[row["model"], dataset][table]
                assert row[dataset]["value"] == pytest.approx(value, abs=1e-9), (name, row["model"], dataset)
                assert shows(cell, value, percent=table == "A")
                checked += 1
    for name, table in (("accuracy_shortest", "C"), ("length_shortest", "D")):
        numbers, texts = rows(reports, name)
        assert {(row["model"], row["dataset"]) for row in numbers} == wanted.keys()
        for row, text in zip(numbers, texts, strict=True):
            for share, cell in zip(SHARES, text[3:], strict=False):
                value = wanted[row["model"], row["dataset"]][f"{table} {share}"]
                assert row[f"shortest {share} %"]["value"] == pytest.approx(value, abs=1e-9), (name, row, share)
                assert shows(cell, value, percent=table == "C")
                checked += 1
    assert checked == 2 * 10 + 2 * 10 * 3
