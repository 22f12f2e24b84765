"""Print, as flags of edit_weights.py, the edit that was most accurate: python -m scripts.choose_edit ARTIFACTS

Reads   evaluations/*/arithmetic/metrics.json, models/*/edit.json
Of equals the smaller edit is chosen: fewer heads, then less strength.
"""

import sys
from pathlib import Path

from thinksteer import store


def main() -> None:
    root, ranked = Path(sys.argv[1]), []
    for file in sorted(root.glob("evaluations/*/arithmetic/metrics.json")):
        edit = store.model_path(root, file.parent.parent.name) / "edit.json"
        if edit.is_file():
            made = store.read_json(edit)
            setting = len(made["edited_heads"]), made["intervention_weight"]
            ranked.append((-store.read_json(file)["accuracy"], *setting))
    _, heads, strength = min(ranked)
    print(f"--n_heads {heads} --intervention_weight {strength:g}")


if __name__ == "__main__":
    main()
