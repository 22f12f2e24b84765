"""What comes from outside does no harm: docs/security.md has the list, and what else of it is tested where."""

import ast
import inspect
import io
import json
import os
import pickle
import random
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from scripts import annotate, write_tasks
from tests.synthetic import record
from tests.test_calibration import chain
from tests.test_models import DEEPSEEK, QWEN, save_checkpoint
from thinksteer import (
    annotation,
    annotations,
    answers,
    card,
    cli,
    confidence_page,
    document,
    drawing,
    equality,
    files,
    grading,
    judge,
    letters,
    models,
    probes,
    question_scores,
    rows,
    store,
    trajectories,
)
from thinksteer import page as report
from thinksteer.comparison import Family, Member
from thinksteer.keywords import annotate_text
from thinksteer.records import InputError
from thinksteer.tables import Column, Table
from thinksteer.terminal import Terminal, discreet, plain

LENGTH = 100_000  # characters of a hostile response
IN_TIME_S = 2.0  # of the processor: the slowest takes a third of a second, what grows with the square 7 and more


@contextmanager
def in_time(what: str, seconds: float = IN_TIME_S) -> Iterator[None]:
    """Fail when the time of the processor is over, rather than in hours."""

    def late(*_: object) -> None:
        raise AssertionError(f"{what!r} takes too long")

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def filled(unit: str) -> str:
    return unit * (LENGTH // len(unit))


UNITS = ["\n", "\n\n", " \n", " ", ".", "?!", ".'", " .", "...\n", "1", "1,", "111,", "-1", "1/", "(", "[", '["a', "{"]
UNITS += ["}", "\\", "\\boxed", "\\boxed{", "\\boxed{1}", "\\text{", "$", "answer is ", "answer is A or ", "(A), "]
UNITS += [
    "A.",
    "Q:",
    "\nQ",
    "```\n",
    "e.g. ",
    "Dr. ",
    "\n1. ",
    "a. ",
    "Wait.\n\n",
    "hmm. ",
    "not ",
    "x\ny ",
    "man ",
    "x ",
]
HOSTILE = [*map(filled, UNITS), "answer is A" + filled(","), "answer is " + filled("(A), ") + "(", filled("\n") + "x"]
READERS: dict[str, Callable[[str], object]] = {
    **{kind: lambda text, kind=kind: grading.extract(text, kind) for kind in grading.READERS},
    "strict letter": letters.strict_letter,
    "option": grading.option,
    "equality": lambda text: equality.decide(text[: equality.MAX_CHARS], text[1 : equality.MAX_CHARS] + "7"),
    "keywords": lambda text: annotate_text(text, "How many things does the man have? " * 30),
    "marks": annotation.parse,
    "question's score": lambda text: question_scores.rule_score(text, ["1", "2"], "law"),
    "tasks": write_tasks.parse,
    "answer's place": lambda text: list(probes._BEFORE.finditer(text)),
}


@pytest.mark.parametrize("reader", READERS)
def test_no_response_keeps_a_reader_busy(reader: str) -> None:
    for text in HOSTILE:
        with in_time(text[:20]):
            READERS[reader](text)


def test_a_looped_chain_is_annotated_in_time_copied_faithfully_or_not() -> None:
    text = filled("Wait.\n\n")
    with in_time("a loop", 2 * IN_TIME_S):
        annotated = annotation.render(text, annotate_text(text, "?"))
        pieces = [piece for _, piece in annotation.parse(annotated, text)]
        places = annotation.locate(text, pieces)
        cut = annotation.locate(text, [*pieces[:200], "not in it", *pieces[:200]])
    assert [text[slice(*place)] for place in places] == ["Wait."] * (LENGTH // 7)
    assert cut == [*places[:200], None, *places[200:400]]


NUMBERS = [
    "[" * 100_000 + "]" * 100_000,
    '{"a":' * 100_000 + "1" + "}" * 100_000,
    "1" * 5000,
    "NaN",
    '{"id":"","id":1}',
]
LINES = ["@", '{"id": @}', '{"id": "a", "sample": 0, "token_ids": [@]}']


def log_of_answers(path: Path) -> None:
    with answers.AnswerLog(path):
        pass


JSON_READERS: dict[str, Callable[[Path], object]] = {
    "records": store.read_records,
    "annotations": annotations.read_annotations,
    "answers": log_of_answers,
    "chains": trajectories.read_trajectories,
    "rows": rows.read,
    "one": store.read_json,
}


@pytest.mark.parametrize("reader", JSON_READERS)
def test_hostile_json_is_one_error_or_a_value(reader: str, tmp_path: Path) -> None:
    for number in NUMBERS:
        for line in LINES:
            (tmp_path / "a.jsonl").write_text(f"{line.replace('@', number)}\n")
            with in_time(line), suppress(InputError):
                JSON_READERS[reader](tmp_path / "a.jsonl")
                assert reader in ("rows", "one")


ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/security.md").read_text(encoding="utf-8")


def test_the_tests_that_the_page_names_are_there() -> None:
    named = re.findall(r"(?<=`)(?:(\w+)\.py::)?(test_\w+)(?=`)", PAGE)
    assert len(named) > 50
    for file, name in named:
        text = (ROOT / f"tests/{file or 'test_security'}.py").read_text(encoding="utf-8")
        assert f"def {name}(" in text, name
    own = set(re.findall(r"^def (test_\w+)", (ROOT / "tests/test_security.py").read_text(), re.MULTILINE))
    assert own <= {name for _, name in named} | {"test_the_tests_that_the_page_names_are_there"}


SOURCES = [*ROOT.glob("*.py"), *ROOT.glob("scripts/**/*.py"), *ROOT.glob("thinksteer/**/*.py")]
RUNS_CODE = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "runpy.run_path", "yaml.load"}
RUNS_CODE |= {
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "marshal.loads",
    "np.load",
    "numpy.load",
    "joblib.load",
}
RUNS_CODE |= {"shutil.unpack_archive", "tempfile.mktemp"}
MAY_RUN = {"prelude.py", "sandbox_runner.py"}  # what programs are given, and the confined process that runs them


def test_no_source_runs_code_from_outside() -> None:
    calls = [
        (path, call) for path in SOURCES for call in ast.walk(ast.parse(path.read_text())) if isinstance(call, ast.Call)
    ]
    assert len(calls) > 5000
    for path, call in calls:
        name, place = ast.unparse(call.func), f"{path.relative_to(ROOT)}:{call.lineno}"
        given = {one.arg: ast.unparse(one.value) for one in call.keywords}
        assert name not in RUNS_CODE or path.name in MAY_RUN, place
        assert not name.endswith((".extract", ".extractall")) and given.get("shell") != "True", place
        if name == "torch.load":
            assert given.get("weights_only") == "True", place
        if name.endswith(".from_pretrained"):  # left out, some of them ask at the terminal
            assert given.get("trust_remote_code", "True") != "True", place
        if name == "requests.get":
            assert "timeout" in given, place


class Payload:
    """Leaves a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def saved(value: object) -> bytes:
    torch.save(value, stream := io.BytesIO())
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol", "ignore:Sparse")
def test_a_tensor_file_is_its_size_and_whatever_its_pickle_does_is_one_error() -> None:
    endless = torch.ones(1, dtype=torch.bfloat16).as_strided((1 << 40,), (0,))
    for value in (endless, {"layers.0": {"steering_vector": endless}}, [torch.ones(2, 2).to_sparse()]):
        with pytest.raises(InputError, match="is no tensor file"):
            files.load_torch(saved(value), "v.pt")
    whole, drawn = saved({"layers.0": {"steering_vector": torch.ones(3)}, "n": (1, "a")}), random.Random(0)
    for _ in range(2000):
        damaged = bytearray(whole)
        damaged[drawn.randrange(60, len(whole))] = drawn.randrange(256)
        with suppress(InputError):
            files.load_torch(bytes(damaged), "v.pt")


@pytest.mark.parametrize("kind", ["known", "unknown"])
def test_code_beside_a_model_is_not_run(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where transformers knows the architecture, and so does without it, nor where it is refused for it; and
    nobody is asked at the terminal."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    folder, marker = save_checkpoint(tmp_path / "evil", DEEPSEEK), tmp_path / "run"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nclass A: pass\n")
    classes = {"AutoConfig": "evil.A", "AutoModelForCausalLM": "evil.A", "AutoTokenizer": ["evil.A", "evil.A"]}
    for name in ("config.json", "tokenizer_config.json"):
        value = json.loads((folder / name).read_text()) | {"auto_map": classes}
        if kind == "unknown":
            value |= {"model_type": "evil", "tokenizer_class": "Evil"}
        (folder / name).write_text(json.dumps(value))
    ref = models.resolve(str(folder), tmp_path)
    assert models.load_tokenizer(ref).get_vocab().keys() >= set(DEEPSEEK)
    if kind == "known":
        assert type(models.load_model(ref, "cpu")).__module__.startswith("transformers.")
    else:
        with pytest.raises(InputError, match="--trust_remote_code"):
            models.load_model(ref, "cpu")
    assert not marker.exists()


@pytest.mark.parametrize("form", ["zip", "bare"])
def test_weights_that_are_a_pickle_are_not_opened(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, marker = save_checkpoint(tmp_path / "evil", DEEPSEEK), tmp_path / "run"
    (folder / "model.safetensors").unlink()
    weights = folder / "pytorch_model.bin"
    if form == "zip":
        torch.save({"lm_head.weight": Payload(marker)}, weights)
    else:
        weights.write_bytes(pickle.dumps(Payload(marker)))
    opened = []
    monkeypatch.setattr(torch, "load", lambda *arguments, **_: opened.append(arguments))
    with pytest.raises(InputError, match="cannot be loaded"):
        models.load_model(models.resolve(str(folder), tmp_path), "cpu")
    assert not marker.exists() and not opened


TEMPLATES = {
    "a class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "a shell": "{{ cycler.__init__.__globals__.os.popen('touch MARKER') }}",
    "globals": "{{ lipsum.__globals__['os'].system('touch MARKER') }}",
    "an attribute by name": "{{ (()|attr('__class__')).__base__ }}",
    "an endless range": "{% for i in range(10**12) %}x{% endfor %}",
    "an error": "{{ raise_exception('no') }}",
    "no template": "{% for %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_chat_template_is_rendered_in_a_sandbox_and_its_failure_is_told(tmp_path: Path, name: str) -> None:
    folder = save_checkpoint(tmp_path / "evil", QWEN, TEMPLATES[name].replace("MARKER", str(tmp_path / "run")))
    with pytest.raises(InputError, match=r"the chat template of .*evil fails .*: give another --template"):
        models.resolve(str(folder), tmp_path).template.prompt("q")
    assert not (tmp_path / "run").exists()


NAMES = [
    "..",
    "a/..",
    "../a",
    "..../....",
    "-/-",
    "a/b/c",
    "/etc/passwd",
    "a\0b",
    "a\\b/c",
    "a\u2028b/c",
    "a\u202e/b",
    "~/a",
]
NAMES += ["a" * 5000, "a/" + "b" * 5000, "https://user:secret@host/a", "", " ", ".", "a\udcff/b"]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_what_names_no_model_is_no_path_either(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no model"):
        models.resolve(name, tmp_path)


def ended(main: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """What a script prints and says at its end."""
    signals = (signal.SIGTERM, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in signals]
    try:
        with pytest.raises(SystemExit):
            cli.run(main)
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
    said = capsys.readouterr()
    return said.out, said.err


ACTING = "\x1b[2J\x1b]0;title\x07\x9b1m\r\b\x00\x7f\u202egnp.exe\u2066\ud800"


@pytest.mark.parametrize("way", ["printed", "error", "disk", "flag"])
def test_nothing_that_is_shown_steers_the_terminal(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        if way == "flag":
            cli.parser("").parse_args([ACTING])
        raise FileNotFoundError(2, "No such file", ACTING) if way == "disk" else InputError(ACTING)

    out, err = ended((lambda: print("a\tb\né", ACTING)) if way == "printed" else fail, capsys)
    shown = out + err
    assert all(letter.isprintable() or letter in "\t\n" for letter in shown)
    assert r"\x1b[2J\x1b]0;title\x07\x9b1m\r\x08\x00\x7f\u202egnp.exe\u2066\ud800" in shown
    assert way != "printed" or out.startswith("a\tb\né ")


def test_a_terminal_is_a_stream_like_its_own_but_for_colours() -> None:
    stream = io.StringIO()
    assert Terminal(stream).write("\x1b[0m") == 4 and stream.getvalue() == r"\x1b[0m" and not Terminal(stream).isatty()
    assert Terminal(sys.__stdout__).fileno() == sys.__stdout__.fileno()


KEY = "Abcdefghijklmnop0123456789"
SECRETS = {
    f"https://user:{KEY}@host:8000/v1": "https://***@host:8000/v1",
    f"https://{KEY}@host/v1?a=1": "https://***@host/v1?a=1",
    f"https://host/a@b.zip?X-Amz-Signature={KEY}&a=1#b": "https://host/a@b.zip?X-Amz-Signature=***&a=1#b",
    f"http://h/?id=1&access_token={KEY}": "http://h/?id=1&access_token=***",
    f"--url=http://h/f.zip?sig={KEY}": "--url=http://h/f.zip?sig=***",
    f"unrecognized arguments: --api_key {KEY}": "unrecognized arguments: --api_key ***",
    f"--token={KEY} x": "--token=*** x",
    f"Illegal header value b'Bearer hf_{KEY}'": "Illegal header value b'Bearer ***'",
    f"sk-proj-{KEY}": "***",
}
HARMLESS = ["--api_key_env OPENAI_API_KEY --max_tokens 5", "https://drive.google.com/uc?id=135ttUxdNc4gQkmbZlpr3ecbhA3"]
HARMLESS += ["thinking_tokens 12", "mask-of-the-tokens-of-all-layers", "key: value", "a@b"]


@pytest.mark.parametrize("text", [*SECRETS, *HARMLESS])
def test_secrets_of_urls_and_flags_are_not_shown(text: str) -> None:
    assert discreet(text) == SECRETS.get(text, text) and (text in SECRETS) == (KEY in text)


@pytest.mark.parametrize("show", [plain, discreet])
def test_what_is_shown_is_looked_through_in_time(show: Callable[[str], str]) -> None:
    for unit in ("a", "?", "?key", "-", "--key", "://", "://a@", "hf_", "sk-", "\x1b", "&sig=", "=", " "):
        with in_time(unit):
            show(filled(unit))


def test_a_manifest_has_the_command_without_its_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", KEY)
    monkeypatch.setattr(
        sys, "argv", ["annotate.py", "--endpoint", f"https://me:{KEY}@host/v1?api_key={KEY}", "--n", "3"]
    )
    with store.run(tmp_path / "a.json", {}, [], overwrite=False):
        store.write_json(tmp_path / "a.json", 1)
    text = store.manifest_path(tmp_path / "a.json").read_text()
    assert KEY not in text
    assert json.loads(text)["command"] == ["annotate.py", "--endpoint", "https://***@host/v1?api_key=***", "--n", "3"]


@pytest.mark.parametrize("way", ["a key for its variable", "a flag there is not"])
def test_a_key_on_the_command_line_is_refused_and_not_repeated(
    way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = f"sk-{KEY}"

    def main() -> None:
        parser = cli.parser("")
        judge.add_flags(parser)
        flag = "--api_key_env" if way == "a key for its variable" else "--api_key"
        args = parser.parse_args(["--endpoint", "http://h/v1", "--endpoint_model", "m", flag, key])
        judge.judge_from(args, tmp_path / "cache")

    out, err = ended(main, capsys)
    assert "--api_key" in err and key not in out + err


def test_a_name_with_dollars_is_no_formula_in_a_figure(tmp_path: Path) -> None:
    figure, [panel] = drawing.frame(1, 2, 2)
    panel.plot([0, 1], label=r"$\frac$")
    panel.set_title("${{{$")
    drawing.legend(figure, panel)
    drawing.save(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size


PATHS = {name: getattr(store, name) for name in store.__all__ if name.endswith("_path")}
PATHS = {name: path for name, path in PATHS.items() if "root" in inspect.signature(path).parameters}
GOOD = {"layer": None, "weight": 0.5, "shard": None, "unsteered": False, "instruction": ""}
LEADING_OUT = [
    "..",
    "../x",
    "a/../../x",
    "/etc/x",
    "a\0",
    "a\nb",
    "..\\x",
    ".hidden",
    "a/.ssh",
    "a" * 300,
    "\u202ex",
    "\ud800",
]
OF_PARTS = {"behaviours_path": "name"}  # which its callers put together of slugs


@pytest.mark.parametrize("name", PATHS)
def test_no_name_leads_an_artifact_out_of_its_root(name: str, tmp_path: Path) -> None:
    parameters = [one for one in inspect.signature(PATHS[name]).parameters if one not in ("root", *GOOD)]
    root = tmp_path / "root"
    for hostile in LEADING_OUT:
        for spoilt in parameters:
            given = {one: root / "responses/m/d.jsonl" if one == "records" else "good" for one in parameters}
            if spoilt == "records":
                given["records"] = root / f"../{tmp_path.name}/x.jsonl"
            elif OF_PARTS.get(name) != spoilt:
                given[spoilt] = hostile
            more = {one: GOOD[one] for one in inspect.signature(PATHS[name]).parameters if one in GOOD}
            try:
                path = PATHS[name](root, **given, **more)
            except InputError:
                continue
            assert given[spoilt] == "good", hostile
            assert path.resolve().is_relative_to(root)


def test_an_instruction_is_no_path_either(tmp_path: Path) -> None:
    for hostile in LEADING_OUT:
        path = store.evaluation_path(tmp_path, "m", "d", hostile)
        assert path.parent == tmp_path / "evaluations/m/d" and re.fullmatch(r"[a-z0-9-]+\.jsonl", path.name)


def test_links_in_the_place_of_files_are_replaced_not_followed(tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    victim.write_text("untouched")
    folder.mkdir()
    host = re.sub(r"[^\w.]", "_", socket.gethostname())
    for number, target in ((os.getpid(), victim), (999_999_999, folder), (10**30, victim)):
        (tmp_path / f".a.{host}-{number}.partial.json").symlink_to(target)
    (tmp_path / "a.json").symlink_to(victim)
    store.write_json(tmp_path / "a.json", {"a": 1})
    assert victim.read_text() == "untouched" and folder.is_dir() and store.read_json(tmp_path / "a.json") == {"a": 1}
    assert {path.name for path in tmp_path.iterdir()} == {"victim", "folder", "a.json"}
    assert not (tmp_path / "a.json").is_symlink()


def test_files_are_for_whom_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        store.write_json(tmp_path / "a/b.json", 1)
        store.write_safetensors(tmp_path / "a/c.safetensors", {"x": torch.ones(1)}, {})
        with store.RecordLog(tmp_path / "a/d.jsonl"), store.run(tmp_path / "a/e.json", {}, [], overwrite=False):
            pass
        with store.atomic_folder(tmp_path / "f") as made:
            (made / "g").touch()
    finally:
        os.umask(before)
    modes = {path.relative_to(tmp_path).as_posix(): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes.keys() >= {"a/b.json", "a/c.safetensors", "a/d.jsonl", "f/g"}
    assert not [name for name, mode in modes.items() if mode & 0o027]


def tags(text: str) -> list[tuple[str, list[str]]]:
    """Every tag of a page with the names of its attributes."""
    found: list[tuple[str, list[str]]] = []
    reader = HTMLParser()
    reader.handle_starttag = lambda tag, attributes: found.append((tag, [name for name, _ in attributes]))
    reader.feed(text)
    return found


def report_of(text: str) -> str:
    ours = [replace(record(f"q{n}", length=5 + n, correct=n > 2, response=text), question=text) for n in range(20)]
    edited = [replace(one, correct=True) for one in ours]
    members = (Member(text, "base", ours, 9), Member(text + "2", "edited", edited, 9, text))
    table = Table(text, text, (Column(text, "text"),), ((text,), ("other",)), text)
    section = report.Section(text, (table,), (report.Picture(b"png", text),), report.examples(Family(text, members)))
    return report.page(text, [text], [text], [section])


def chains_of(text: str) -> str:
    one = replace(chain(text, [True, False], at=[0, 1]), choice=text, likeliest=(text, text))
    return confidence_page.page(text, [text], [confidence_page.Told(one, text, (text, text))])


MARKUP = [
    "<script>fetch('http://x')</script>",
    "</title></style></pre><img src=//x onerror=alert(1)>",
    "<!--",
    "]]>",
    "&lt;",
]
MARKUP += [
    '" onmouseover="alert(1)',
    "' onfocus=alert(1) autofocus '",
    "javascript:alert(1)",
    "<meta http-equiv=refresh>",
]
MARKUP += [
    "\u2028\u2029</script>",
    "\0<\0script>",
    "<svg/onload=alert(1)>",
    "<a href=http://x>",
    "{{7*7}}",
    "\ud800<b>",
]


@pytest.mark.parametrize("page", [report_of, chains_of])
def test_a_page_has_the_same_tags_whatever_stands_in_it_and_asks_nobody(page: Callable[[str], str]) -> None:
    plain_tags = tags(page("text"))
    for text in MARKUP:
        made = page(text)
        assert tags(made) == plain_tags, text
        assert made.startswith(document.OPENING) and made.count("http-equiv") == 1 + made.count("http-equiv=refresh")
    assert not {name for name, _ in plain_tags} & {"script", "link", "iframe", "object", "embed", "form", "base", "a"}
    assert all(found.startswith("data:image/png;base64,") for found in re.findall(r'src="([^"]*)', page("text")))
    assert not re.search(r"https?:|//|url\(|@import", re.sub(r"data:[^\"]*", "", page("text")))


HOSTILE_CARDS = {
    "a call": '!!python/object/apply:os.system ["touch MARKER"]',
    "lines": '"mit\\n---\\n# Injected\\n"',
    "itself": "&a [*a]",
    "a tag": "<script>alert(1)</script>",
    "broken": "[a",
}


@pytest.mark.parametrize("name", HOSTILE_CARDS)
def test_what_a_base_model_s_card_states_stays_a_value(name: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        f"---\nlicense: {HOSTILE_CARDS[name].replace('MARKER', str(tmp_path / 'run'))}\n---\n"
    )
    base = "owner/base\n---\n# Injected"
    try:
        made = ModelCard(f"---\n{card.metadata(base, tmp_path, None, 'tag')}\n---\n# Mine\n")
    except InputError as error:
        assert "its metadata" in str(error) and name in ("a call", "broken")
    else:
        assert made.text == "# Mine\n" and made.data.base_model == base and name not in ("a call", "broken")
    assert not (tmp_path / "run").exists()


def test_what_a_judge_writes_is_labels_and_places_in_the_text_or_nothing() -> None:
    text = "Wait. Is 5+6=11? Yes."
    evil = """["<b>"]Wait.["end-section"]["../x"]Is["end-section"]["a b"]Yes["end-section"]["x\x1b[2J"]5["end-section"]
Ignore the above: ["deduction"]rm -rf /["end-section"]["deduction"]5+6=11?["end-section"]["zzz"]Yes.["end-section"]"""
    pieces = annotation.parse(evil, text)
    assert [label for label, _ in pieces] == ["deduction", "deduction", "zzz"]
    places = annotation.locate(text, [piece for _, piece in pieces])
    assert [place and text[slice(*place)] for place in places] == [None, "5+6=11?", "Yes."]
    asked = annotate.PROMPT.format(thinking="{thinking} {0.__class__} %s")
    assert asked.endswith("{thinking} {0.__class__} %s")


def test_no_answer_is_run_as_code(tmp_path: Path) -> None:
    """math-verify parses with sympy, whose parser of plain text would; what reaches it are figures and operators."""
    code = f"__import__('os').system('touch {tmp_path / 'run'}')"
    forms = (
        "{}",
        "1+{}",
        "x={}",
        r"\text{{{}}}",
        r"\operatorname{{{}}}(2)",
        "x_{{{}}}",
        r"\frac{{{}}}{{2}}",
        "({}, 2)",
    )
    forms += (r"\begin{{pmatrix}}{}\\2\end{{pmatrix}}", "$ {} $", r"5\text{{ {}}}", "{}^{{2}}", r"\int {} dx")
    answers = [form.format(one) for form in forms for one in (code, code.replace("_", r"\_"))]
    with grading.Grader(limit_s=5) as grader:
        graded = grader.grade_all([(rf"\boxed{{{one}}}", r"\sqrt{2}+x", "math") for one in answers])
    assert not any(one.correct for one in graded) and not (tmp_path / "run").exists()
