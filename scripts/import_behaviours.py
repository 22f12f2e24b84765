"""Read the files that Venhoff et al. (2025) publish into the artifacts; what kind each is, is told by its content.

    python -m scripts.import_behaviours mean_vectors_deepseek-r1-distill-qwen-1.5b.pt --model deepseek-qwen-1.5b
    python -m scripts.import_behaviours responses_deepseek-r1-distill-qwen-1.5b.json --model deepseek-qwen-1.5b

Reads   FILE: mean_vectors_*.pt, layer_effects_*.pt, responses_*.json, steering_evaluation_results_*.json; of texts the
        tokenizer of --model, which their token ids are made with anew
Writes  directions/<model>/<label>.safetensors: the label's mean minus the overall one, as long as that
        layers/<model>/<dataset>.<label>.upstream.json and .png: the mean over examples by layer
        responses/<model>/<dataset>.jsonl, or steering/<model>/<dataset>/<label>/ with weights -1, 0 and 1, and the
        annotations of either, upstream's own, in annotations/upstream/

Nothing in a file is executed.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from thinksteer import cli, model_files, models, store, texts
from thinksteer.annotation import LABELS, Annotation
from thinksteer.annotations import AnnotationLog
from thinksteer.behaviour_figures import layers_figure
from thinksteer.intervals import Estimate, mean
from thinksteer.methods.behaviours import OVERALL, PUBLISHED_LAYERS
from thinksteer.models import ModelRef
from thinksteer.records import InputError, Record
from thinksteer.venhoff import MAX_TOKENS, Answer, LayerEffects, MeanVectors, Responses, Steered, load, records_of

ANNOTATOR = "upstream"


def main() -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help=".pt or .json")
    cli.add_model(parser)
    parser.add_argument("--trust_remote_code", action="store_true", help="run Python code that comes with the model")
    parser.add_argument(
        "--dataset", default="venhoff_tasks", help="what to call upstream's tasks (default: %(default)s)"
    )
    parser.add_argument("--unscaled", action="store_true", help="directions as long as the difference comes out")
    cli.add_opened_in_prompt(parser)
    cli.add_artifacts(parser)
    args = parser.parse_args()
    ref = models.of_flags(args)
    if args.opened_in_prompt:
        ref = replace(ref, template=texts.opened(ref.template))
    found = [load(path) for path in args.files]  # all are read before anything is written
    for path, value in zip(args.files, found, strict=True):
        texts.check_opened(str(path), [answer.text for answer in answers_of(value)], ref.template)
    for path, value in zip(args.files, found, strict=True):
        IMPORTS[type(value)](args, ref, path, value)


def answers_of(found: MeanVectors | LayerEffects | Responses | Steered) -> list[Answer]:
    if isinstance(found, Responses):
        return list(found.answers)
    steered = found.answers.values() if isinstance(found, Steered) else ()
    return [answer for by_weight in steered for answers in by_weight.values() for answer in answers]


def import_vectors(args: argparse.Namespace, ref: ModelRef, file: Path, found: MeanVectors) -> None:
    config, shape = model_files.config(ref), list(found.means[OVERALL].shape)
    own = [config["num_hidden_layers"], config["hidden_size"]] if config else shape
    if shape != own:
        raise InputError(f"{file} has [layers, hidden size] {shape}, {ref.key} has {own}: give its own --model")
    if not (labels := [one for one in LABELS if one in found.means]):
        raise InputError(f"{file} has the means of {', '.join(found.means)}: of none of the labels {', '.join(LABELS)}")
    for label in labels:
        path = store.direction_path(args.artifacts, ref.key, label)
        about = {"method": label, "read_site": "block_out", "model": ref.key, "source": ref.source}
        about |= {"origin": origin(file), "unscaled": str(args.unscaled)}
        about |= {f"n_{one}": str(found.counts[one]) for one in (label, OVERALL)}
        direction = found.direction(label, args.unscaled)
        with store.run(path, about, [file], args.overwrite) as run:
            if not run.finished:
                store.write_safetensors(path, {"direction": direction}, about | {"origin_sha256": store.sha256(file)})
        print(f"{path}: {shape}, norm {direction.norm(dim=-1).min():.3g} to {direction.norm(dim=-1).max():.3g}")


def import_effects(args: argparse.Namespace, ref: ModelRef, file: Path, found: LayerEffects) -> None:
    for label, examples in found.effects.items():
        if not examples:
            print(f"{label}: no example with an effect for every layer")
            continue
        path = store.layer_effects_path(args.artifacts, ref.key, args.dataset, f"{label}.upstream")
        settings = {"model": ref.key, "dataset": args.dataset, "control": label, "origin": origin(file)}
        means = [layer_mean(effects) for effects in zip(*examples, strict=True)]
        strongest = max(range(len(means)), key=lambda layer: means[layer].value)
        with store.run(path, settings, [file], args.overwrite) as run:
            if not run.finished:
                with store.atomic(store.figure_path(path)) as partial:
                    layers_figure(label, means, strongest, partial)
                layers = [{"layer": layer, "upstream": asdict(one)} for layer, one in enumerate(means)]
                about = {"n_examples": len(examples), "n_left_out": found.left_out[label], "strongest": strongest}
                store.write_json(path, settings | about | {"layers": layers})
        layer = PUBLISHED_LAYERS.get(len(means), {}).get(label)
        published = "none that we know of" if layer is None else f"after block {layer}"
        left_out = f", {found.left_out[label]} left out (not finite, or not of {len(means)} layers)"
        print(
            f"{path}: {len(examples)} examples{left_out if found.left_out[label] else ''}; "
            f"largest after block {strongest}, upstream steers {published}"
        )


def layer_mean(effects: Sequence[float]) -> Estimate:
    """Over examples, each a question of its own."""
    found = mean([f"{example:06}" for example in range(len(effects))], effects, None)
    assert found is not None  # there are examples
    return found


def import_responses(args: argparse.Namespace, ref: ModelRef, file: Path, found: Responses) -> None:
    path = store.responses_path(args.artifacts, ref.key, args.dataset)
    write(args, ref, file, path, found.answers, found.questions, {})


def import_steered(args: argparse.Namespace, ref: ModelRef, file: Path, found: Steered) -> None:
    config = model_files.config(ref)
    published = PUBLISHED_LAYERS.get(config["num_hidden_layers"], {}) if config else {}
    for label, answers in found.answers.items():
        for weight, same in answers.items():
            layer = published.get(label) if weight else None
            path = store.steering_path(args.artifacts, ref.key, args.dataset, label, weight, layer)
            about = {"control": label, "method": label, "weight": weight, "layer": layer, "max_length": MAX_TOKENS}
            write(args, ref, file, path, same, None, about)


def write(
    args: argparse.Namespace,
    ref: ModelRef,
    file: Path,
    path: Path,
    answers: Sequence[Answer],
    questions: Sequence[str] | None,
    about: dict[str, object],
) -> None:
    """Records of upstream's texts at `path`, and their annotations where those belong."""
    tokenizer = models.load_tokenizer(ref, args.trust_remote_code)
    pairs = records_of(answers, questions, args.dataset, ref.template, tokenizer)
    settings = {"model": ref.key, "dataset": args.dataset, "imported_from": origin(file)} | about
    settings |= {"opened_in_prompt": True} if args.opened_in_prompt else {}
    annotations = store.annotations_path(args.artifacts, path, ANNOTATOR)
    with store.run(path, settings, [file], args.overwrite) as run:
        if not run.finished:
            append(store.RecordLog(path), [record for record, _ in pairs])
    with store.run(annotations, settings | {"annotator": ANNOTATOR}, [path], args.overwrite) as run:
        if not run.finished:
            append(AnnotationLog(annotations), [annotation for _, annotation in pairs])
    sections = sum(len(annotation.sections) for _, annotation in pairs)
    lost = sum(len(annotation.unmatched) for _, annotation in pairs)
    print(f"{path}: {len(pairs)} responses, {sections} sections, {lost} more were found nowhere in the text")


def origin(file: Path) -> str:
    return f"Venhoff et al. {file.name}"


def append(log: store.RecordLog | AnnotationLog, lines: Sequence[Record] | Sequence[Annotation]) -> None:
    """The lines that are not there yet."""
    with log:
        for line in lines:
            if (line.id, line.sample) not in log.done:
                log.append(line)


IMPORTS = {
    MeanVectors: import_vectors,
    LayerEffects: import_effects,
    Responses: import_responses,
    Steered: import_steered,
}


if __name__ == "__main__":
    cli.run(main)
