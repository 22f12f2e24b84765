"""What comes from outside does no harm: docs/security.md has the list, and what else of it is tested where."""

import io
import json
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.test_models import DEEPSEEK, QWEN, save_checkpoint
from thinksteer import annotation, cli, drawing, equality, grading, judge, letters, models, probes, store
from thinksteer.keywords import annotate_text
from thinksteer.records import InputError
from thinksteer.terminal import Terminal, discreet, plain

LENGTH = 100_000  # characters of a hostile response
IN_TIME_S = 2.0  # of the processor: the slowest takes a third of a second, what grows with the square 7 and more


def filled(unit: str) -> str:
    return unit * (LENGTH // len(unit))


UNITS = ["\n", "\n\n", " \n", " ", ".", "?!", ".'", " .", "...\n", "1", "1,", "111,", "-1", "1/", "(", "[", '["a', "{"]
UNITS += ["}", "\\", "\\boxed", "\\boxed{", "\\boxed{1}", "\\text{", "$", "answer is ", "answer is A or ", "(A), "]
UNITS += ["A.", "Q:", "\nQ", "```\n", "e.g. ", "Dr. ", "\n1. ", "a. ", "Wait.\n\n", "hmm. ", "not ", "x\ny "]
HOSTILE = [*map(filled, UNITS), "answer is A" + filled(","), "answer is " + filled("(A), ") + "(", filled("\n") + "x"]
READERS: dict[str, Callable[[str], object]] = {
    **{kind: lambda text, kind=kind: grading.extract(text, kind) for kind in grading.READERS},
    "strict letter": letters.strict_letter,
    "option": grading.option,
    "equality": lambda text: equality.decide(text[: equality.MAX_CHARS], text[1 : equality.MAX_CHARS] + "7"),
    "keywords": lambda text: annotate_text(text, "How many things does the man have? " * 30),
    "marks": annotation.parse,
    "answer's place": lambda text: list(probes._BEFORE.finditer(text)),
}


@pytest.mark.parametrize("reader", READERS)
def test_no_response_keeps_a_reader_busy(reader: str) -> None:
    for text in HOSTILE:
        begun = time.process_time()
        READERS[reader](text)
        assert time.process_time() - begun < IN_TIME_S, text[:20]


def test_a_looped_chain_is_annotated_in_time_copied_faithfully_or_not() -> None:
    text, begun = filled("Wait.\n\n"), time.process_time()
    annotated = annotation.render(text, annotate_text(text, "?"))
    pieces = [piece for _, piece in annotation.parse(annotated, text)]
    places = annotation.locate(text, pieces)
    assert [text[slice(*place)] for place in places] == ["Wait."] * (LENGTH // 7)
    cut = annotation.locate(text, [*pieces[:200], "not in it", *pieces[:200]])
    assert cut == [*places[:200], None, *places[200:400]]
    assert time.process_time() - begun < 2 * IN_TIME_S


class Payload:
    """Leaves a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


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
    with pytest.raises(InputError, match=r"its chat template fails .*: give --template"):
        models.resolve(str(folder), tmp_path)
    assert not (tmp_path / "run").exists() and models.resolve(str(folder), tmp_path, "qwen3").template.name == "qwen3"


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
        models.resolve(name, tmp_path, "deepseek")


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
        begun = time.process_time()
        show(filled(unit))
        assert time.process_time() - begun < IN_TIME_S, unit


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
