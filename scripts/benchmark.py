"""How fast is it here? Each part measures one kind of work against the least that it could cost.

    python -m scripts.benchmark
    python -m scripts.benchmark --parts generation --model deepseek-qwen-1.5b --dataset gsm8k --max_length 1024

Reads   models/<name>/ or the hub, a dataset
Writes  benchmark.json and benchmark.<part>.png in --output; prints the tables

generation  tokens per second of the same prompts, every way of generating: transformers batched and one by one, vLLM by
            itself, through evaluation, steered by biases and by hooks. Greedy by default, so that all ways generate the
            same tokens. No answers are forced
probing     every 8 tokens of the responses the thinking is closed and 50 answers are weighed; against generating them
extraction  the pass of stage 2 over random models of some sizes, against a bare forward pass over the same tokens and
            against storing all activations, one example at a time: time, memory, and how they grow
heads       the pass of stage 4 likewise, against making every head's contribution to every token
edit        stage 5 on a checkpoint, against copying its files and against loading it: time and memory, which do not
            grow with it. Both are flushed to the disk, which is that of TMPDIR
report      stage 7 on records of 8 models and 5 data sets, against reading them once and against plain loops
grading     microseconds of an answer, by exact rules and by math-verify
concurrency tokens per second of --model with 1, 8, 32 and 64 responses at a time, in float32 and in bfloat16
reading     the passes of stages 2 and 4 over --model against a bare forward pass, in float32 and in bfloat16

Every way runs once unmeasured, then --repeats times in turn with the other ways of its engine,
each time from an empty prefix cache. One engine is open at a time; without --engine both are measured. The first start
of vLLM includes its import. On a CPU, transformers takes OMP_NUM_THREADS cores: more than are idle make it far slower.
"""

import argparse
from pathlib import Path

from scripts.benchmarks import edit, extraction, generation, grading, heads, probing, real, report
from scripts.benchmarks.measuring import engines
from thinksteer import cli, model_files, models, store
from thinksteer.drawing import save
from thinksteer.records import InputError
from thinksteer.stage import data_files
from thinksteer.tables import as_json, markdown

PARTS = {  # functions of flags and a model: `Measured`
    "generation": generation.measure,
    "probing": probing.measure,
    "extraction": extraction.measure,
    "heads": heads.measure,
    "edit": edit.measure,
    "report": report.measure,
    "grading": grading.measure,
    "concurrency": real.measure_concurrency,
    "reading": real.measure_reading,
}
OWN = ("concurrency", "reading")  # for a model of one's own: the toy model is too small for their figures


def parse_args() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    cli.add_loading(parser)
    cli.add_engine(parser)
    cli.add_data(parser)
    cli.add_sampling(parser)
    parser.add_argument(
        "--parts",
        nargs="+",
        action=cli.Distinct,
        choices=PARTS,
        default=[part for part in PARTS if part not in OWN],
        help="default: %(default)s",
    )
    parser.add_argument("--repeats", type=cli.positive_int, default=3, help="of every way (default: %(default)s)")
    parser.add_argument(
        "--pass_tokens", type=cli.positive_int, default=2048, help="read by extraction and heads (default: %(default)s)"
    )
    parser.add_argument("--edit_gb", type=cli.natural_float, default=1.0, help="edited at most (default: %(default)s)")
    parser.add_argument(
        "--report_questions", type=cli.positive_int, default=1319, help="400 records each (default: %(default)s)"
    )
    parser.add_argument("--n_answers", type=cli.positive_int, default=2000, help="to grade (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="folder to write (default: reports/ in --artifacts)")
    cli.add_artifacts(parser)
    parser.set_defaults(n_questions=cli.UpTo(256), n_samples=2, max_length=320, temperature=0.0, shard=None)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.pipeline_parallel_size * args.data_parallel_size > 1:
        raise InputError("not every way takes pipelines or copies: use --tensor_parallel_size alone")
    if engines(args) == ["hf"] and args.engine is None:
        print("vLLM is not installed here: transformers alone is measured")
    ref = models.of_flags(args)
    path = (args.output or store.reports_path(args.artifacts)) / "benchmark.json"
    inputs = [*model_files.fingerprint(ref), *data_files(args)]
    with store.run(path, vars(args), inputs, overwrite=True) as run:
        tables, repeats = [], {}
        for part in args.parts:
            measured = PARTS[part](args, ref)
            run.device = measured.device or run.device
            tables, repeats = tables + measured.tables, repeats | {part: measured.repeats}
            print("\n" + "\n".join(map(markdown, measured.tables)))
            with store.atomic(path.with_suffix(f".{part}.png")) as file:
                save(measured.figure, file)
            store.write_json(path, {"tables": list(map(as_json, tables)), "repeats": repeats})
    print(path)


if __name__ == "__main__":
    cli.run(main)
