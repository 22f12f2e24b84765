"""Print, as flags of edit_weights.py, the edit that was most accurate: python -m scripts.choose_edit ARTIFACTS

Reads   evaluations/*/arithmetic/metrics.json, models/*/edit.json
Writes  nothing

Of equals the smaller edit is chosen: fewer heads, then less strength.
"""

from pathlib import Path

from thinksteer import cli, store
from thinksteer.records import InputError


def main() -> None:
    parser = cli.parser(__doc__)
    parser.add_argument("artifacts", type=Path, help="root of all files")
    root, ranked = parser.parse_args().artifacts, []
    for file in sorted(root.glob("evaluations/*/arithmetic/metrics.json")):
        edit = store.model_path(root, file.parent.parent.name) / "edit.json"
        if edit.is_file():
            made = store.read_json(edit, "edited_heads", "intervention_weight")
            setting = len(made["edited_heads"]), made["intervention_weight"]
            ranked.append((-store.read_json(file, "accuracy")["accuracy"], *setting))
    if not ranked:
        raise InputError(f"{root} holds no evaluation of an edited model on arithmetic: run evaluate_models.py")
    _, heads, strength = min(ranked)
    print(f"--n_heads {heads} --intervention_weight {strength:g}")


if __name__ == "__main__":
    cli.run(main)
