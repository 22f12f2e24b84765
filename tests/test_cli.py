import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tqdm import tqdm

from thinksteer import cli
from thinksteer.records import InputError

GROUPS = (
    cli.add_model,
    cli.add_loading,
    cli.add_data,
    cli.add_artifacts,
    cli.add_sampling,
    cli.add_shard,
    cli.add_batch_tokens,
)


def full():
    parser = cli.parser("First line.\n\nReads   this\nWrites  that")
    for add in GROUPS:
        add(parser)
    parser.add_argument("--direction_weight", nargs="+", type=cli.finite_float, action=cli.Distinct)
    return parser


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        full().parse_args(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_without_flags_the_embedded_model_does_its_own_problems():
    flags = full().parse_args([])
    assert (flags.model, flags.dataset, flags.artifacts) == ("tiny-reasoner", "arithmetic", Path("artifacts"))
    assert (flags.device, flags.dtype, flags.trust_remote_code, flags.overwrite) == ("auto", "auto", False, False)
    assert (
        flags.temperature is flags.top_p is flags.top_k is flags.shard is flags.data_file is flags.n_questions is None
    )
    assert (flags.n_samples, flags.seed, flags.instruction) == (1, 0, "")


def test_values_are_parsed_to_their_types():
    arguments = "--shard 2/3 --temperature 0 --top_p 1 --top_k 0 --n_questions 5 --data_file a.csv --trust_remote_code"
    flags = full().parse_args([*arguments.split(), "--direction_weight", "-0.08", "0", "0.01"])
    assert flags.shard == (2, 3) and (flags.temperature, flags.top_p, flags.top_k) == (0.0, 1.0, 0)
    assert flags.n_questions == 5 and flags.data_file == Path("a.csv") and flags.trust_remote_code is True
    assert flags.direction_weight == [-0.08, 0.0, 0.01]


@pytest.mark.parametrize("text", ["1", "1/", "/2", "a/b", "-1/2", "1/2/3", "2/2", "0/0", "1.0/2"])
def test_a_wrong_shard_is_explained(capsys, text):
    error = refused(capsys, f"--shard={text}")
    assert "--shard" in error and ("not of the form I/N" in error or "I counts from 0 and stays below N" in error)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n_samples", "0"], "--n_samples: 0 is below 1"),
        (["--n_questions", "1.5"], "--n_questions: '1.5' is not a whole number"),
        (["--max_length", "x"], "--max_length: 'x' is not a whole number"),
        (["--seed=-1"], "--seed: -1 is below 0"),
        (["--temperature", "nan"], "--temperature: 'nan' is not a finite number"),
        (["--temperature=-0.1"], "--temperature: -0.1 is below 0"),
        (["--top_p", "0"], "--top_p: 0 is not above 0 and at most 1"),
        (["--top_p", "1.1"], "--top_p: 1.1 is not above 0 and at most 1"),
        (["--direction_weight", "0.1", "inf"], "'inf' is not a finite number"),
        (["--direction_weight", "0.1", "0.2", "0.10"], "--direction_weight: 0.1 is given twice"),
        (["--direction_weight", "0", "-0.0"], "--direction_weight: -0.0 is given twice"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
        (["--overwrite", "yes"], "unrecognized arguments: yes"),
        (["--mod", "x"], "unrecognized arguments: --mod x"),
    ],
)
def test_wrong_values_are_one_line_errors_that_name_the_flag(capsys, arguments, message):
    assert message in refused(capsys, *arguments)


def test_help_begins_with_the_docstring_as_written_and_shows_defaults(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    with pytest.raises(SystemExit) as stop:
        full().parse_args(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "First line.\n\nReads   this\nWrites  that" in text and "(default: tiny-reasoner)" in text


def test_flags_are_spelt_with_underscores():
    flags = [option for action in full()._actions for option in action.option_strings if option.startswith("--")]
    assert not [flag for flag in flags if "-" in flag[2:]]


def end(main, capsys):
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as stop:
            cli.run(main)
    finally:
        signal.signal(signal.SIGTERM, before)
    return stop.value.code, capsys.readouterr().err


def test_a_script_ends_with_a_status_and_a_line_not_a_traceback(capsys, monkeypatch):
    def fail():
        raise InputError("a.json is missing: run stage 1")

    def stop():  # as Ctrl-C does; the signal itself is ignored where tests run in the background
        raise KeyboardInterrupt

    assert end(lambda: None, capsys) == (0, "")
    assert end(fail, capsys) == (2, "error: a.json is missing: run stage 1\n")
    assert end(stop, capsys) == (130, "stopped; run the same command to go on\n")
    monkeypatch.setattr(sys, "argv", ["stage.py", "--overwrite"])
    assert end(stop, capsys) == (130, "stopped; run the same command, without --overwrite, to go on\n")


def test_what_the_disk_says_is_one_line_with_a_cure(tmp_path, capsys):
    (tmp_path / "file").write_text("1")

    def full():  # as a write to a full disk raises it
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for main, culprit, cure in (
        (lambda: (tmp_path / "file" / "a").mkdir(), f"{tmp_path}/file/a: Not a directory", "give another path"),
        (lambda: (tmp_path / "file").mkdir(), f"{tmp_path}/file: File exists", "give another path"),
        (tmp_path.read_text, f"{tmp_path}: Is a directory", "give another path"),
        ((tmp_path / "none").read_text, f"{tmp_path}/none: No such file", "correct the path"),
        (full, "error: No space left on device", "make room"),
    ):
        code, error = end(main, capsys)
        assert code == 2 and culprit in error and cure in error and error.count("\n") == 1


def test_other_errors_keep_their_traceback(capsys):
    with pytest.raises(ConnectionResetError):
        cli.run(lambda: (_ for _ in ()).throw(ConnectionResetError(errno.ECONNRESET, "gone")))
    with pytest.raises(ZeroDivisionError):
        cli.run(lambda: print(1 // 0))


def test_a_stop_that_a_library_turns_into_an_error_of_its_own_is_a_stop(capsys):
    def convert():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(9)
        except KeyboardInterrupt:
            raise ValueError("could not determine the shape") from None

    assert end(convert, capsys) == (130, "stopped; run the same command to go on\n")


def test_a_terminated_script_closes_what_it_holds_and_says_how_to_go_on(tmp_path):
    script = (
        "import time; from thinksteer import cli\n"
        "def main():\n"
        "    try:\n        print('ready', flush=True); time.sleep(60)\n"
        "    finally:\n        print('closed', flush=True)\n"
        "cli.run(main)\n"
    )
    root = Path(cli.__file__).parent.parent
    pipe = subprocess.PIPE
    child = subprocess.Popen([sys.executable, "-c", script], cwd=root, stdout=pipe, stderr=pipe, text=True)
    assert child.stdout.readline() == "ready\n"
    started = time.monotonic()
    os.kill(child.pid, signal.SIGTERM)
    out, error = child.communicate(timeout=30)
    assert (child.returncode, out, error) == (130, "closed\n", "stopped; run the same command to go on\n")
    assert time.monotonic() - started < 30


def test_a_message_stands_on_a_line_of_its_own_below_a_progress_bar(capsys):
    def fail():
        for _ in tqdm(range(2), desc="read"):
            raise InputError("a.json:3: no record")

    code, error = end(fail, capsys)
    assert code == 2 and error.endswith("\nerror: a.json:3: no record\n")
