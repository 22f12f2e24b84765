"""What the scripts' command lines share: flag groups, checked values, and how a script ends."""

import argparse
import errno
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from thinksteer.engines import ENGINES
from thinksteer.flags import (  # noqa: F401 (for the scripts)
    UpTo,
    finite_float,
    json_object,
    natural_float,
    natural_int,
    positive_int,
    setting,
    shard,
    share,
)
from thinksteer.methods import METHODS
from thinksteer.records import InputError
from thinksteer.terminal import Terminal, discreet, plain
from thinksteer.thinking import CHAT, TEMPLATES

STOPPED = 130  # exit status after Ctrl-C, as in shells; USAGE is argparse's
USAGE = 2
MOVED = "move it away, or give another path"
UNLOCKED = "its file system has no locks (Lustre is mounted without flock?): give a path on another one"
CURES = {  # of what the disk says; any other error is a fault of ours, and shows its traceback
    errno.EACCES: "change its permissions, or give another path",
    errno.EPERM: "change its permissions, or give another path",
    errno.EROFS: "give a path that can be written to",
    errno.EISDIR: MOVED,
    errno.ENOTDIR: MOVED,
    errno.EEXIST: MOVED,
    errno.ENOENT: "correct the path",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOSPC: "make room on the disk; the same command goes on",
    errno.EDQUOT: "make room within your quota; the same command goes on",
    errno.ENOLCK: UNLOCKED,
    errno.ENOSYS: UNLOCKED,
}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, discreet(plain(f"error: {message} (--help lists all flags)\n")))


class Distinct(argparse.Action):
    """For a flag with several values: refuses the same value twice."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        twice = next((value for index, value in enumerate(values) if value in values[:index]), None)
        if twice is not None:
            parser.error(f"argument {option_string}: {twice} is given twice")
        setattr(namespace, self.dest, values)


def parser(doc: str) -> argparse.ArgumentParser:
    """A parser whose help begins with the script's docstring. Flags cannot be abbreviated."""
    return Parser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)


def add_model(parser: argparse.ArgumentParser, several: Sequence[str] = ()) -> None:
    """The flags that choose a model; with `several` defaults, `--model` takes any number of them."""
    what = "model key, name under models/, local folder or hub id (default: %(default)s)"
    if several:
        parser.add_argument("--model", nargs="+", action=Distinct, default=list(several), help=what)
    else:
        parser.add_argument("--model", default="tiny-reasoner", help=what)
    flags = parser.add_argument_group("how the model is prompted, and what in its responses is its thinking")
    flags.add_argument(
        "--template",
        choices=[CHAT, *TEMPLATES],
        help="a family's, or the tokenizer's chat template (default: for a listed model its family's, else chat)",
    )
    flags.add_argument("--system", metavar="TEXT", help="system message, with --template chat")
    flags.add_argument(
        "--chat_template_kwargs",
        type=json_object,
        metavar="JSON",
        help="variables of the chat template, such as '{\"enable_thinking\": false}'",
    )
    flags.add_argument(
        "--thinking",
        choices=["marks", "response"],
        default="marks",
        help="what delimiters enclose, or, for models without, the response up to its answer (default: %(default)s)",
    )
    flags.add_argument("--think_open", metavar="TEXT", help="opening delimiter (default: the template's, else <think>)")
    flags.add_argument("--think_close", metavar="TEXT", help="closing delimiter (default: likewise, </think>)")


def add_opened_in_prompt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--opened_in_prompt",
        action="store_true",
        help="the prompts ended with the opening delimiter, which the texts therefore lack",
    )


def add_loading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: %(default)s")
    dtypes = ["auto", "float32", "bfloat16", "float16"]
    parser.add_argument("--dtype", choices=dtypes, default="auto", help="of the weights (default: %(default)s)")
    parser.add_argument("--trust_remote_code", action="store_true", help="run Python code that comes with the model")
    parser.add_argument(
        "--mean_recurrence",
        type=positive_int,
        help="how often a recurrent-depth model runs its core (default: as its config says)",
    )


def add_engine(parser: argparse.ArgumentParser) -> None:
    """The flags that choose what generates, and how it divides a model."""
    default = "vllm where it has a GPU and knows the model, else hf"
    parser.add_argument("--engine", choices=ENGINES, help=f"what generates (default: {default})")
    add_parallel(parser)


def add_parallel(parser: argparse.ArgumentParser) -> None:
    for kind, what in (
        ("tensor", "GPUs that each layer is divided among"),
        ("pipeline", "groups of GPUs that the layers are divided among"),
        ("data", "copies of the model, each on GPUs of its own"),
    ):
        parser.add_argument(
            f"--{kind}_parallel_size", type=positive_int, default=1, help=f"{what}; vllm only (default: %(default)s)"
        )
    parser.add_argument(
        "--gpu_memory_utilization", type=share, default=0.9, help="of the GPU's; vllm only (default: %(default)s)"
    )
    parser.add_argument(
        "--max_num_seqs", type=positive_int, default=256, help="responses that run together (default: %(default)s)"
    )


def add_controls(parser: argparse.ArgumentParser, default: Sequence[str], more: Iterable[str] = ()) -> None:
    parser.add_argument(
        "--control",
        nargs="+",
        action=Distinct,
        choices=[*METHODS, *more],
        default=list(default),
        help="which directions (default: %(default)s)",
    )


def add_rules(parser: argparse.ArgumentParser) -> None:
    """The flags of the methods' own that say which tokens are compared."""
    for add_flags in dict.fromkeys(method.add_flags for method in METHODS.values()):
        add_flags(parser)


def add_annotations(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--annotations", help="labelled spans of annotations/<this>/ (scripts.annotate), not by the method's own rule"
    )


def add_data(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """The flags that choose questions; with `several`, `--dataset` takes any number of keys."""
    what = "dataset key, or a name of your own for --data_file (default: %(default)s)"
    if several:
        parser.add_argument("--dataset", nargs="+", action=Distinct, default=["arithmetic"], help=what)
    else:
        parser.add_argument("--dataset", default="arithmetic", help=what)
    parser.add_argument("--split", default="test", help="default: %(default)s")
    parser.add_argument(
        "--data_file", type=Path, help="local JSONL, JSON, CSV or Parquet file, read by the conventions of --dataset"
    )
    parser.add_argument(
        "--few_shot_file", type=Path, help="worked examples of mmlu_pro's prompt (default: the hub's validation split)"
    )
    parser.add_argument("--question_column", help="of --data_file (default: the usual names)")
    parser.add_argument("--answer_column", help="of --data_file (default: the usual names)")
    parser.add_argument("--id_column", help="of --data_file (default: the row number is the id)")
    what = "use only so many (default: %(default)s, or all if there are fewer; None: all)"
    parser.add_argument("--n_questions", type=positive_int, help=what)
    parser.add_argument(
        "--data_seed", type=natural_int, default=0, help="makes the questions of arithmetic (default: %(default)s)"
    )


def add_artifacts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--artifacts", type=Path, default=Path("artifacts"), help="root of all files (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="remove an earlier output and begin anew")


def add_sampling(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--n_samples", type=positive_int, default=1, help="per question (default: %(default)s)")
    parser.add_argument(
        "--max_length", type=positive_int, default=8192, help="most tokens a response may have (default: %(default)s)"
    )
    parser.add_argument(
        "--instruction",
        default="",
        help="text after every question or, with {question} in it, around (default: none)",
    )
    parser.add_argument("--seed", type=natural_int, default=0, help="of the sampling (default: %(default)s)")
    own = "(default: the model's own generation settings)"
    parser.add_argument("--temperature", type=natural_float, help=f"0 is greedy {own}")
    parser.add_argument("--top_p", type=share, help=f"above 0, at most 1 {own}")
    parser.add_argument("--top_k", type=natural_int, help=f"0 keeps every token {own}")


def add_shard(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shard", type=shard, metavar="I/N", help="do part I (from 0) of N (default: everything)")


def add_batch_tokens(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch_tokens",
        type=positive_int,
        help="tokens in one batch, padding too (default: on a GPU 16384, on a CPU what its memory allocator keeps)",
    )


def run(main: Callable[[], None]) -> NoReturn:
    """Run a script's `main` and exit: 0; 2 and one line for the user's errors and the disk's; 130 if stopped (Ctrl-C,
    SIGTERM, or SIGUSR1, which schedulers send ahead of the time limit). What it prints is shown as `Terminal` does."""
    requests = []

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        requests.append(number)
        raise KeyboardInterrupt

    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # by shells, of what runs in the background
    for number in (signal.SIGTERM, signal.SIGUSR1, *([] if ignored else [signal.SIGINT])):
        signal.signal(number, stop)
    try:
        with redirect_stdout(Terminal(sys.stdout)):
            main()
    except BaseException as error:
        # What is interrupted in a library written in C may raise another error in place of the interrupt.
        if requests or isinstance(error, KeyboardInterrupt):
            anew = ", without --overwrite," if "--overwrite" in sys.argv else ""  # which would begin once more
            print(f"stopped; run the same command{anew} to go on", file=sys.stderr)
            sys.exit(STOPPED)
        line = _line(error)
        if line is None:
            raise
        traceback.clear_frames(error.__traceback__)  # which ends progress bars that were left open
        print(f"error: {line}", file=Terminal(sys.stderr))
        sys.exit(USAGE)
    sys.exit(0)


def _line(error: BaseException) -> str | None:
    """What is at fault and what to do about it; None: this program is, and its traceback says where."""
    if isinstance(error, OSError) and error.errno in CURES:
        where = "" if error.filename is None else f"{error.filename}: "
        return f"{where}{error.strerror}: {CURES[error.errno]}"
    return str(error) if isinstance(error, InputError) else None
