"""What the generating stages (responses, steering, evaluation) share: from their flags to records on disk."""

import argparse
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from thinksteer import analysis, data, model_files, models, store
from thinksteer.annotation import passage
from thinksteer.annotations import read_annotations
from thinksteer.engines import Engine, Loading, Steering, default_engine, engine_class
from thinksteer.flags import UpTo
from thinksteer.generation import records, requests
from thinksteer.grading import Grader
from thinksteer.methods import METHODS
from thinksteer.methods.method import Method, Rule, labelled
from thinksteer.models import ModelRef
from thinksteer.records import Edit, InputError, LogitBias, Passage, Problem, Record, Sampling
from thinksteer.thinking import Reader, Template

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_problems(args: argparse.Namespace, dataset: str) -> list[Problem]:
    """The problems that the flags name, and of those the shard's: every n-th, so that shards are of like difficulty.

    Where there are fewer than a default of --n_questions says, `args.n_questions` becomes their number.
    """
    columns = data.Columns(args.question_column, args.answer_column, args.id_column)
    files = {"data_file": args.data_file, "few_shot_file": args.few_shot_file}
    at_most = isinstance(args.n_questions, UpTo)
    problems = data.load(
        dataset, args.split, args.n_questions, args.data_seed, columns=columns, **files, at_most=at_most
    )
    if at_most and len(problems) < args.n_questions:
        print(f"{args.data_file or args.split}: {len(problems)} questions of {dataset}, all are used")
        args.n_questions = len(problems)
    if args.shard is None:
        return problems
    part, parts = args.shard
    if parts > len(problems):
        raise InputError(f"--shard {part}/{parts}: there are only {len(problems)} questions to divide")
    return problems[part::parts]


def data_files(args: argparse.Namespace) -> list[Path]:
    """The files that the questions come from, of those that the flags name."""
    return [file for file in (args.data_file, args.few_shot_file) if file is not None]


def annotations(args: argparse.Namespace, responses: Path) -> list[Path]:
    """The file that --annotations means for these responses, if it was given."""
    return [store.annotations_path(args.artifacts, responses, args.annotations)] if args.annotations else []


def chosen_methods(args: argparse.Namespace, responses: Path) -> list[Method]:
    """The methods of --control; with --annotations the spans that they compare are those of that file."""
    methods = [METHODS[control] for control in args.control]
    for file in annotations(args, responses):

        def annotated(records: Sequence[Record], rule: Rule, reader: Reader, file: Path = file) -> list[Passage]:
            found = read_annotations(file, responses)
            pairs = [(record, found.get((record.id, record.sample))) for record in records]
            passages = [passage(record, one, reader) for record, one in pairs if one is not None]
            return [one for one in passages if one.spans]

        methods = [replace(method, passages=annotated) for method in methods]
    return methods


def load_passages(
    args: argparse.Namespace,
    ref: ModelRef,
    methods: Sequence[Method],
    rule: Rule,
    kept: Collection[tuple[str, int, int]] | None = None,
) -> list[Passage]:
    """What methods that read alike label in the responses of `--dataset`, with --min_examples of each label.

    `kept`: only the spans with this (id, sample, start).
    """
    reader = Reader.of(ref.template, models.load_tokenizer(ref, args.trust_remote_code))
    records = store.read_records(store.responses_path(args.artifacts, ref.key, args.dataset))
    # The order in the files is the order of completion, which differs from run to run.
    records = sorted(records, key=lambda record: (record.id, record.sample))
    return labelled(methods, records, rule, reader, args.min_examples, kept)


def say(path: Path, records: analysis.Responses, max_length: int, template: Template) -> None:
    """What the records of a file show, in a line, and in one more each what is odd about them."""
    found = analysis.outcomes(records, loops=True, think_open=template.open)
    print(f"{path}: {analysis.describe(found)}")
    for line in analysis.oddities(analysis.metrics(found, max_length), max_length):
        print(f"  note: {line}")


def load_model(args: argparse.Namespace, ref: ModelRef, *runs: store.Run) -> "PreTrainedModel":
    """The model for stages that read it without an engine; the manifests of the runs say in which dtype it runs."""
    import torch

    model = models.load_model(ref, args.device, args.dtype, args.trust_remote_code, args.mean_recurrence)
    device, dtype = models.runs_on(model)
    for run in runs:
        run.runs_on(device, dtype)
    print(f"{ref.key}: {in_words(device, dtype, torch.get_num_threads() if device == 'cpu' else None)}")
    return model


def in_words(device: str, dtype: str, threads: int | None) -> str:
    count = f" ({threads} thread{'s' * (threads > 1)})" if threads else ""
    return f"{device}{count}, {dtype}"


class Generator:
    """Answers problems with one model, which is loaded when the first record is missing and freed in the end."""

    def __init__(self, args: argparse.Namespace, ref: ModelRef, steering: Steering = "none") -> None:
        from thinksteer.engines.sampling import not_carried, sampling_from

        models.check_code(ref.location, args.trust_remote_code)
        self.args, self.ref, self.steering = args, ref, steering
        self.engine_name = args.engine or default_engine(ref)
        self._engine: Engine | None = None
        self._told = False  # how the model is prompted
        stated = model_files.generation_config(ref)
        self.sampling: Sampling = sampling_from(
            stated,
            args.max_length,
            temperature=args.temperature,
            top_p=args.top_p,
            top_k=args.top_k,
            forced_answer=ref.template.forced_answer,
        )
        self.not_carried = not_carried(stated)
        if self.not_carried:
            print(f"{ref.key}: of its generation_config.json no engine here carries {', '.join(self.not_carried)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._engine is not None:
            self._engine.close()

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            self._engine = engine_class(self.engine_name).load(self.ref, self.loading)
        return self._engine

    @property
    def loading(self) -> Loading:
        from thinksteer.engines.sampling import native

        return replace(Loading.of(self.args, self.steering), native_sampling=native(self.sampling))

    @cached_property
    def reader(self) -> Reader:
        return Reader.of(self.ref.template, models.load_tokenizer(self.ref, self.args.trust_remote_code))

    def settings(self, dataset: str) -> dict[str, Any]:
        """What the records of a dataset depend on, for the run manifest."""
        from thinksteer.engines.sampling import CARRIED

        args, sampling = self.args, self.sampling
        return models.identity(self.ref, args.mean_recurrence) | {
            "template": self.ref.template.name,
            **self.ref.template.settings,
            "think_open": self.ref.template.open,
            "think_close": self.ref.template.close,
            "dataset": dataset,
            "split": args.split,
            "data_seed": args.data_seed,
            "n_questions": args.n_questions,
            "n_samples": args.n_samples,
            "shard": args.shard,
            "instruction": args.instruction,
            "max_length": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "repetition_penalty": sampling.repetition_penalty,
            **{name: getattr(sampling, name) for name in CARRIED},
            "not_carried": self.not_carried,
            "forced_answer": sampling.forced_answer,
            "forced_tokens": sampling.forced_tokens,
            "seed": args.seed,
            "engine": self.engine_name,
            "dtype": args.dtype,
        }

    def write(
        self,
        output: Path,
        dataset: str,
        problems: Sequence[Problem],
        edits: Sequence[Edit] = (),
        sources: Sequence[Path] = (),
        bias: LogitBias | None = None,
        **settings: Any,
    ) -> None:
        """Write the records of all samples to `output`, going on where an earlier run stopped.

        `sources` are the files, and `settings` the values, that the edits or the bias came from.
        """
        args = self.args
        inputs = [*sources, *model_files.fingerprint(self.ref), *data_files(args)]
        with store.run(output, self.settings(dataset) | settings, inputs, args.overwrite) as run:
            if run.finished:
                return
            with store.RecordLog(output) as log, Grader() as grader:
                grader.prepare({problem.kind for problem in problems})  # before a model is loaded for nothing
                engine, template = self.engine, self.ref.template
                asked = requests(
                    problems, template, engine.tokenizer, args.instruction, args.n_samples, args.seed, log.done
                )
                if asked and not self._told:
                    opened = ", opened in the prompt" if template.opened_in(asked[0].prompt) else ""
                    print(f"{self.ref.key}: {template.described()}{opened}")
                    self._told = True
                sampling = replace(self.sampling, bias=bias)
                run.runs_on(engine.device, engine.dtype)
                print(
                    f"{output}: {len(asked)} responses to generate, {len(log.done)} are there; at most "
                    f"{sampling.max_tokens} tokens each; {self.engine_name}, "
                    f"{in_words(engine.device, engine.dtype, engine.threads)}, {engine.cache} of key-value cache"
                )
                for record in records(engine, problems, asked, sampling, grader, edits):
                    log.append(record)
