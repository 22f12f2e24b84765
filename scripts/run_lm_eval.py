"""Tasks of EleutherAI's lm-evaluation-harness on a model as it is, edited, or steered while it runs.

    python -m scripts.run_lm_eval --tasks mmlu_pro piqa --control reasoning_memory --direction_weight -0.1 0 0.1
    python -m scripts.run_lm_eval --model ThinkEdit-tiny-reasoner --tasks my_task --include_path my_tasks
    python -m scripts.run_lm_eval --model qwen3-8b --tasks gsm8k --apply_chat_template --think_end_token '</think>' \\
        --gen_kwargs max_gen_toks=16384 temperature=0.6 top_p=0.95 --chat_template_args enable_thinking=true

Reads   directions/<model>/<control>.safetensors where a control is given; the tasks' data, as lm-eval does
Writes  lm_eval/<model>/<tasks>[.<control>...].json: for each weight lm-eval's results and standard errors, the tasks'
        versions and numbers of examples

Steering acts at every position that lm-eval feeds, examples and padding too. Needs lm-eval, which the requirements
leave out: pip install 'lm-eval[hf]==0.4.13'
"""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinksteer import cli, interventions, model_files, models, store
from thinksteer.methods import METHODS
from thinksteer.methods.method import Method
from thinksteer.models import ModelRef
from thinksteer.records import EVERYWHERE, Edit, InputError
from thinksteer.stage import load_model

if TYPE_CHECKING:
    from torch import Tensor

PACKAGE = "lm-eval[hf]==0.4.13"
THINKING = ("think_end_token", "chat_template_args")
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # one thing by lm-eval's names
KEPT = ("results", "groups", "group_subtasks", "versions", "n-shot", "n-samples", "higher_is_better", "samples")


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    cli.add_loading(parser)
    parser.add_argument("--tasks", nargs="+", action=cli.Distinct, required=True, help="by lm-eval's names")
    parser.add_argument("--include_path", type=Path, help="folder with tasks of your own (YAML)")
    parser.add_argument("--limit", type=cli.positive_int, help="questions of each task (default: all)")
    parser.add_argument("--num_fewshot", type=cli.natural_int, help="examples in the prompt (default: the task's)")
    parser.add_argument("--apply_chat_template", action="store_true", help="ask as the tokenizer's chat template does")
    parser.add_argument(
        "--chat_template_args",
        nargs="+",
        type=cli.setting,
        default=[],
        metavar="KEY=VALUE",
        help="for the chat template, such as enable_thinking=true",
    )
    parser.add_argument("--think_end_token", help="answers begin behind it (default: the thinking is judged too)")
    parser.add_argument(
        "--gen_kwargs",
        nargs="+",
        type=cli.setting,
        default=[],
        metavar="KEY=VALUE",
        help="how answers are generated, such as max_gen_toks=16384 temperature=0.6 (default: the task's settings)",
    )
    parser.add_argument("--batch_size", type=cli.positive_int, default=8, help="default: %(default)s")
    parser.add_argument("--log_samples", action="store_true", help="write every question and answer too")
    parser.add_argument("--name", help="of the file to write (default: of the tasks and the control)")
    parser.add_argument("--control", choices=METHODS, help="which direction to steer with (default: none)")
    parser.add_argument("--direction", help="another one of directions/<model>/")
    parser.add_argument(
        "--direction_weight",
        type=cli.finite_float,
        nargs="+",
        action=cli.Distinct,
        help="times the direction (default: as in the control's paper)",
    )
    parser.add_argument(
        "--layer",
        type=cli.natural_int,
        nargs="+",
        action=cli.Distinct,
        help="steer only these, together (default: the paper's)",
    )
    interventions.add_flags(parser)
    cli.add_artifacts(parser)
    args = parser.parse_args()
    if args.control is None and (
        args.direction_weight or args.direction or args.layer or interventions.named("", args)
    ):
        parser.error("a direction, its weight and how it is applied go with --control")
    if not all(task.strip() for task in args.tasks):
        parser.error("argument --tasks: one of the names is empty")
    if args.include_path and not args.include_path.is_dir():
        parser.error(f"argument --include_path: {args.include_path} is no folder")
    for flag in ("gen_kwargs", "chat_template_args"):
        pairs = getattr(args, flag)
        setattr(args, flag, dict(pairs))
        if len(getattr(args, flag)) < len(pairs):
            parser.error(f"argument --{flag}: a key is given twice")
    if args.chat_template_args and not args.apply_chat_template:
        parser.error("--chat_template_args goes with --apply_chat_template")
    try:
        args.gen_kwargs = generation(args.gen_kwargs)
    except ValueError as error:
        parser.error(f"argument --gen_kwargs: {error}")
    return args


def generation(asked: dict[str, Any]) -> dict[str, Any]:
    """The settings so that they overrule any task's: lm-eval would take a task's `max_gen_toks` before another name for
    it, and a task's greedy `do_sample` before a temperature. ValueError: a value is of the wrong kind."""
    lengths = [asked[name] for name in LENGTHS if name in asked]
    made = {name: value for name, value in asked.items() if name not in LENGTHS}
    if lengths:
        if len(lengths) > 1 or type(lengths[0]) is not int or lengths[0] < 1:
            raise ValueError("give one max_gen_toks, a whole number above 0")
        made["max_gen_toks"] = lengths[0]
    if "temperature" in asked:
        if type(asked["temperature"]) not in (int, float) or asked["temperature"] < 0:
            raise ValueError(f"temperature={asked['temperature']} is no number from 0 on")
        made = {"do_sample": asked["temperature"] > 0} | made
    return made


def main() -> None:
    args = parse_args()
    if find_spec("lm_eval") is None:
        raise InputError(f"lm-eval is not installed here: pip install '{PACKAGE}'")
    ref = models.of_flags(args)
    method = chosen_method(args)
    file = method and store.direction_path(args.artifacts, ref.key, args.direction or args.control)
    path = store.lm_eval_path(args.artifacts, ref.key, args.name or default_name(args))

    weights = (args.direction_weight or list(method.weights)) if method else [0.0]
    inputs = [*([file] if file else []), *model_files.fingerprint(ref)]
    inputs += sorted(args.include_path.rglob("*.yaml")) if args.include_path else []
    with store.run(path, settings(args, ref, weights), inputs, args.overwrite) as run:
        if not run.finished:
            vectors = interventions.read_vectors(file, method, args) if method else None
            edits = [edits_for(args, method, vectors, weight) for weight in weights]
            measure(args, ref, task_manager(args.include_path), dict(zip(weights, edits, strict=True)), path, run)
    show(path)


def settings(args: argparse.Namespace, ref: ModelRef, weights: list[float]) -> dict[str, Any]:
    """What the results depend on, for the run manifest."""
    names = ("tasks", "include_path", "limit", "num_fewshot", "apply_chat_template", "batch_size", "log_samples")
    own = {name: getattr(args, name) for name in (*names, "dtype", "mean_recurrence", "control", "layer")}
    steering = args.control and interventions.named(args.direction or args.control, args)
    own |= {name: value for name in ("gen_kwargs", *THINKING) if (value := getattr(args, name))}
    return {"model": ref.key, "source": ref.source, "weights": weights, "steering": steering} | own


def chosen_method(args: argparse.Namespace) -> Method | None:
    """The control as the flags have it applied; None: nothing is steered."""
    if args.control is None:
        return None
    method = interventions.chosen(METHODS[args.control], args)
    if method.conditional:
        raise InputError(
            f"--control {args.control} acts at some tokens only, and lm-eval does not say which it feeds: steer at all "
            "of them with --tokens all, or use steer_eval.py"
        )
    return method


def default_name(args: argparse.Namespace) -> str:
    """`mmlu_pro+piqa`, with a control `mmlu_pro+piqa.seal.layer19`."""
    parts = ["+".join(args.tasks)]
    if args.control:
        parts.append(interventions.named(args.direction or args.control, args))
        parts += [f"layer{layer}" for layer in args.layer or []]
    return ".".join(parts)


def edits_for(args: argparse.Namespace, method: Method | None, vectors: Tensor | None, weight: float) -> list[Edit]:
    if method is None or not weight:
        return []
    default = method.layer(len(vectors))
    layers = args.layer or (range(len(vectors)) if default is None else [default])
    return method.edits(vectors, layers, weight, EVERYWHERE)


def measure(
    args: argparse.Namespace,
    ref: ModelRef,
    manager: Any,
    edits: dict[float, list[Edit]],
    path: Path,
    *runs: store.Run,
) -> None:
    """Run lm-eval's tasks under the edits of each weight; what an interrupted run has written is kept."""
    from thinksteer.lm_harness import harness
    from thinksteer.steering import applied

    tokenizer = models.load_tokenizer(ref, args.trust_remote_code)
    if args.apply_chat_template and not tokenizer.chat_template:
        raise InputError(f"--apply_chat_template: the tokenizer of {ref.location} has no chat template")
    unused = [key for key in args.chat_template_args if key not in str(tokenizer.chat_template)]
    if unused:
        raise InputError(f"--chat_template_args: the chat template of {ref.location} does not use {unused[0]}")
    check_generation(check_tasks(manager, args.tasks), args.gen_kwargs)
    model = load_model(args, ref, *runs)
    asked = harness(model, tokenizer, args.batch_size, **{name: getattr(args, name) for name in THINKING})
    if (longest := args.gen_kwargs.get("max_gen_toks", 0)) >= asked.max_length:
        raise InputError(
            f"--gen_kwargs max_gen_toks={longest}: a prompt and its answer have {asked.max_length} tokens in {ref.key}"
        )
    runs = store.read_json(path) if path.exists() else []
    for weight in list(edits)[len(runs) :]:
        print(f"weight {weight:g}")
        with applied(model, edits[weight]):
            runs.append({"weight": weight} | results(asked, manager, args))
        store.write_json(path, runs)


def task_manager(include_path: Path | None) -> Any:
    """lm-eval's index of its own tasks and of those in a folder."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=include_path)


def check_tasks(manager: Any, names: list[str]) -> dict[str, Any]:
    """The tasks, those of groups too, by name.

    InputError: lm-eval has no such task, cannot load its data, or would run programs that the model writes.
    """
    for name in names:
        if name not in manager.task_index:
            raise InputError(f"--tasks {name}: lm-eval has no such task; --include_path adds a folder of your own")
    try:
        tasks = manager.load(names)["tasks"]
    except Exception as error:  # data out of reach, a task of two groups, or whatever a task's file runs into
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"--tasks {' '.join(names)}: lm-eval cannot load them ({said}); data come from the hub"
        ) from error
    for name, task in tasks.items():
        if getattr(task, "UNSAFE_CODE", False):
            raise InputError(f"--tasks: {name} runs what the model writes, outside of any sandbox: leave it out")
    return tasks


def check_generation(tasks: dict[str, Any], asked: dict[str, Any]) -> None:
    """Say which tasks would cut all answers at lm-eval's default. InputError: a setting that nothing reads."""
    from transformers import GenerationConfig

    known = {*vars(GenerationConfig()), "until", "max_gen_toks"}
    if unknown := sorted(asked.keys() - known):
        raise InputError(f"--gen_kwargs {unknown[0]}: neither lm-eval nor transformers has such a setting")
    short = [
        name
        for name, task in tasks.items()
        if task.OUTPUT_TYPE == "generate_until"
        and not {*LENGTHS, "max_length"} & {**(task.config.generation_kwargs or {}), **asked}.keys()
    ]
    if short:
        print(
            f"{', '.join(short)}: every answer, thinking included, is cut at 256 tokens, lm-eval's default; "
            "--gen_kwargs max_gen_toks=N gives more"
        )


def results(asked: Any, manager: Any, args: argparse.Namespace) -> dict[str, Any]:
    """What lm-eval finds, as JSON; "N/A" is what it could not compute."""
    from lm_eval import simple_evaluate
    from lm_eval.utils import handle_non_serializable

    found = simple_evaluate(
        asked,
        tasks=args.tasks,
        task_manager=manager,
        limit=args.limit,
        num_fewshot=args.num_fewshot,
        apply_chat_template=args.apply_chat_template,
        gen_kwargs=args.gen_kwargs,
        log_samples=args.log_samples,
    )
    text = json.dumps({key: found[key] for key in KEPT if key in found}, default=handle_non_serializable)
    return json.loads(text, parse_constant=lambda nan: "N/A")


def show(path: Path) -> None:
    from lm_eval.utils import make_table

    for run in store.read_json(path):
        print(f"{path}, weight {run['weight']:g}")
        for column in ("results", "groups"):
            if column in run:
                print(make_table(run, column))


if __name__ == "__main__":
    cli.run(main)
