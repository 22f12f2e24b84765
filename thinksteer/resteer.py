"""The edits under which steered records were generated, from what their run says of itself."""

from pathlib import Path

from thinksteer import interventions, store
from thinksteer.methods import METHODS
from thinksteer.records import EVERYWHERE, Edit, InputError
from thinksteer.thinking import Reader


def edits_of(root: Path, model: str, file: Path, reader: Reader) -> tuple[Path, list[Edit]]:
    """The direction's file and the edits of a finished file of steered records, whose weight is not 0.

    InputError: they were not made by edits, their run does not say by which, or the direction is another one now.
    """
    settings = store.run_settings(file)
    if settings["method"] not in METHODS:
        raise InputError(f"{file}: {settings['method']} changes logits, not the model's states: give --unsteered")
    if "direction" not in settings:
        raise InputError(f"{file} does not say how its direction was applied: steer anew, or give --unsteered")
    flags = interventions.flags_of(settings)
    method = interventions.chosen(METHODS[settings["method"]], flags)
    source = store.direction_path(root, model, settings["direction"])
    inputs = store.manifest_of(store.record_files(file)[0])["inputs"]
    if not source.is_file() or store.sha256(source) not in inputs.values():
        raise InputError(f"{source} is not what {file} was made with: steer anew, or give --unsteered")
    vectors = interventions.read_vectors(source, method, flags)
    layers, weight = settings.get("layers"), settings["weight"]
    if layers:  # steered together, each with its share
        weight /= len(layers)
    else:
        layers = range(len(vectors)) if settings["layer"] is None else [settings["layer"]]
    where = method.where(reader) if method.conditional else EVERYWHERE
    return source, method.edits(vectors, layers, weight, where)
