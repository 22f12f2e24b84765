"""What each piece of a chain of thought does: six labels (Venhoff et al. 2025), by keywords or by a language model.

    python -m scripts.annotate
    python -m scripts.annotate --annotator judge --endpoint https://api.openai.com/v1 --endpoint_model gpt-4.1
    python -m scripts.annotate --annotator local --annotator_model deepseek-qwen-14b --max_length 16384
    python -m scripts.annotate artifacts/steering/tiny-reasoner/arithmetic/backtracking/1.0.layer3.jsonl

Reads   record files under the artifacts root, all of one --model (default: responses/<model>/<dataset>.jsonl)
Writes  annotations/<name>/<the record file's path>, one annotation per response; the answers of a judge are kept in
        judge/<endpoint model>.jsonl. Prints the sections of each label, and what was found nowhere or left out
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from thinksteer import cli, model_files, models, store
from thinksteer import judge as endpoint
from thinksteer.annotation import LABELS, Annotation, annotate, render, solid, thinking_text
from thinksteer.annotations import AnnotationLog, read_annotations
from thinksteer.engines import Engine
from thinksteer.generation import record_seed
from thinksteer.keywords import annotate_text
from thinksteer.models import ModelRef
from thinksteer.records import InputError, Record, Request
from thinksteer.stage import Generator
from thinksteer.texts import with_token_ids
from thinksteer.thinking import Reader, prompt_ids

PROMPT = """Below is the thinking process of a language model. Divide all of it into consecutive pieces, by what the \
model is doing, and label each piece with one of these:

initializing: it takes up the task, puts it into its own words, or says how it will begin
deduction: it draws a conclusion or takes the next step from what it has so far
adding-knowledge: it brings in something it knows that the task did not state, such as a fact, formula or definition
example-testing: it makes up an example, a number or a case and tries it
uncertainty-estimation: it says that it is unsure or may be wrong, or checks what it has
backtracking: it gives up the way it was going and turns to another one

A piece is as long as the model keeps doing the same; where it changes within a sentence, divide the sentence. Copy \
the text letter by letter, errors and formulas as they are; add, drop, repeat and reorder nothing. Write each piece as

["label"]text of the piece["end-section"]

and answer with nothing but the pieces.

Thinking process:
{thinking}"""

Answers = Iterator[tuple[int, str]]


@dataclass(frozen=True)
class Annotator:
    """Who annotates: `answers` takes records and the text of their thinking, and gives (index, annotated) as they come.

    `name` is its folder's; `settings` and `inputs` are what its answers depend on; `engine`: of a local model.
    """

    name: str
    answers: Callable[[Sequence[Record], Sequence[str]], Answers]
    settings: dict[str, Any] = field(default_factory=dict)
    inputs: Sequence[Path] = ()
    engine: Callable[[], Engine] | None = None


def keywords(args: argparse.Namespace, stack: ExitStack) -> Annotator:
    def answers(records: Sequence[Record], texts: Sequence[str]) -> Answers:
        for index, (record, text) in enumerate(zip(tqdm(records, unit="response"), texts, strict=True)):
            yield index, render(text, annotate_text(text, record.question))

    return Annotator("keywords", answers)


def judge(args: argparse.Namespace, stack: ExitStack) -> Annotator:
    if not args.endpoint_model:
        raise InputError("--annotator judge needs --endpoint and --endpoint_model")
    name = store.slug(args.endpoint_model)
    asked = endpoint.judge_from(args, store.judge_path(args.artifacts, args.endpoint_model))

    def answers(records: Sequence[Record], texts: Sequence[str]) -> Answers:
        return asked.answers([PROMPT.format(thinking=text) for text in texts])

    return Annotator(name, answers, {"annotator_model": args.endpoint_model, "prompt": PROMPT})


def local(args: argparse.Namespace, stack: ExitStack) -> Annotator:
    if not args.annotator_model:
        raise InputError("--annotator local needs --annotator_model")
    ref = models.resolve(args.annotator_model, args.artifacts)
    generator = stack.enter_context(Generator(args, ref))

    def answers(records: Sequence[Record], texts: Sequence[str]) -> Answers:
        prompts = [ref.template.prompt(PROMPT.format(thinking=text)) for text in texts]
        requests = [
            Request(
                str(index),
                0,
                prompt,
                prompt_ids(ref.template, generator.engine.tokenizer, prompt),
                record_seed(0, record.id, record.sample),
            )
            for index, (record, prompt) in enumerate(zip(records, prompts, strict=True))
        ]
        for response in generator.engine.generate(requests, replace(generator.sampling, forced_answer="")):
            yield int(response.id), ref.template.after_thinking(response.text, response.status)

    settings = {"annotator_model": ref.key, "annotator_source": ref.source, "annotator_template": ref.template.name}
    settings |= {"prompt": PROMPT, "max_length": args.max_length, "engine": generator.engine_name, "dtype": args.dtype}
    return Annotator(store.slug(ref.key), answers, settings, model_files.fingerprint(ref), lambda: generator.engine)


ANNOTATORS = {"keywords": keywords, "judge": judge, "local": local}


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("records", nargs="*", type=Path, metavar="RECORDS", help="record files, shards as one")
    parser.add_argument("--annotator", choices=ANNOTATORS, default="keywords", help="default: %(default)s")
    parser.add_argument("--name", help="folder of the annotations (default: keywords, or the annotating model)")
    cli.add_model(parser)
    parser.add_argument("--dataset", default="arithmetic", help="whose responses to read (default: %(default)s)")
    parser.add_argument("--n_responses", type=cli.positive_int, help="annotate only the first so many (default: all)")
    cli.add_artifacts(parser)
    endpoint.add_flags(parser)
    parser.add_argument("--annotator_model", help="of --annotator local: as --model, greedy")
    parser.add_argument(
        "--max_length", type=cli.positive_int, default=8192, help="tokens of its answers (default: %(default)s)"
    )
    cli.add_loading(parser)
    cli.add_engine(parser)
    parser.set_defaults(temperature=0.0, top_p=None, top_k=None)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    ref = models.of_flags(args)
    tokenizer = models.load_tokenizer(ref, args.trust_remote_code)
    reader = Reader.of(ref.template, tokenizer)
    with ExitStack() as stack:
        annotator = ANNOTATORS[args.annotator](args, stack)
        for path in args.records or [store.responses_path(args.artifacts, ref.key, args.dataset)]:
            output = store.annotations_path(args.artifacts, path, args.name or annotator.name)
            records = sorted(store.read_records(path), key=lambda record: (record.id, record.sample))[
                : args.n_responses
            ]
            if untold := sum(bool(record.response) and not record.token_ids for record in records):
                print(f"{path}: {untold} responses have no token ids: their texts get those of {ref.key}'s tokenizer")
                records = [
                    record if record.token_ids else with_token_ids(record, ref.template, tokenizer)
                    for record in records
                ]
            write(args, ref, reader, annotator, path, records, output)
            print(f"{output}: {describe(records, list(read_annotations(output).values()))}")


def write(
    args: argparse.Namespace,
    ref: ModelRef,
    reader: Reader,
    annotator: Annotator,
    path: Path,
    records: Sequence[Record],
    output: Path,
) -> None:
    """Annotate the records of `path` that `output` does not have yet; those that thought nothing without asking."""
    settings = {"model": ref.key, "source": ref.source, "template": ref.template.name, "annotator": args.annotator}
    settings |= {"n_responses": args.n_responses} | annotator.settings
    inputs = [path, *model_files.fingerprint(ref), *annotator.inputs]
    with store.run(output, settings, inputs, args.overwrite) as run:
        if run.finished:
            return
        with AnnotationLog(output) as log:
            missing = [record for record in records if (record.id, record.sample) not in log.done]
            texts = [record.response[slice(*thinking_text(record, reader))] for record in missing]
            for record, text in zip(missing, texts, strict=True):
                if not text.strip():
                    log.append(annotate(record, reader, ""))
            asked = [(record, text) for record, text in zip(missing, texts, strict=True) if text.strip()]
            if annotator.engine and asked:
                engine = annotator.engine()
                run.runs_on(engine.device, engine.dtype)
            for index, annotated in annotator.answers([one for one, _ in asked], [text for _, text in asked]):
                log.append(annotate(asked[index][0], reader, annotated))


def describe(records: Sequence[Record], annotations: Sequence[Annotation]) -> str:
    """The sections of each label, unknown labels last; pieces found nowhere; characters of thinking without label."""
    text = {(record.id, record.sample): record.response for record in records}
    counts = Counter(section.label for one in annotations for section in one.sections)
    covered = sum(
        solid(text[one.id, one.sample][part.start : part.end]) for one in annotations for part in one.sections
    )
    uncovered, unmatched = sum(one.uncovered for one in annotations), sum(len(one.unmatched) for one in annotations)
    unknown = sorted(counts.keys() - set(LABELS))
    pieces = max(1, unmatched + counts.total())
    return (
        f"{len(annotations)} responses; sections: {', '.join(f'{counts[label]} {label}' for label in LABELS)}; "
        f"other labels: {', '.join(f'{counts[label]} {label}' for label in unknown) or 'none'}; "
        f"{unmatched / pieces:.1%} of pieces found nowhere, "
        f"{uncovered / max(1, covered + uncovered):.1%} of characters without label"
    )


if __name__ == "__main__":
    cli.run(main)
