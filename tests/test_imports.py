"""The rooms of the house: which module may import which, read from the imports themselves."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "thinksteer"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
STAGES = sorted(ROOT.glob("*.py"))
# Seconds to import, and hundreds of megabytes: no message about a flag or a file should wait for them.
HEAVY = {
    "torch",
    "transformers",
    "vllm",
    "matplotlib",
    "scipy",
    "sklearn",
    "datasets",
    "sympy",
    "openai",
    "gguf",
    "lm_eval",
}
# These measure, train or look into models, and tables that they share with their flags are made of tensors' code.
HEAVY_SCRIPTS = {"benchmark", "check_engines", "control_vectors", "layer_effects", "train_tiny_reasoner"}
LIGHT = [*STAGES, *(path for path in sorted((ROOT / "scripts").glob("*.py")) if path.stem not in HEAVY_SCRIPTS)]

# The disk: paths, records, manifests, checkpoints, and what was published by others.
DISK = {
    "store",
    "files",
    "journal",
    "lines",
    "manifest",
    "checkpoints",
    "upstream",
    "archive",
    "zips",
    "card",
    "exchange",
    "annotations",
    "trajectories",
    "behaviour_files",
    "steered_files",
    "venhoff",
    "answers",
    "judge",
}
# What runs models, and so must work where nothing is stored.
RUNS_MODELS = {"activations", "attribution", "localize", "layout", "places", "recurrent", "steering"}
RUNS_MODELS |= {"generation", "engines"}
# Modules that only the stages may use.
FOR_STAGES = {"thinksteer.cli", "thinksteer.stage", "thinksteer.states"}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, lazily or not; `from package import module` counts as the module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & MODULES.keys()) or {node.module}
            found |= {node.module} if inner - MODULES.keys() else set()
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def of_rooms(rooms: set[str]) -> list[str]:
    return sorted(module for module in MODULES if room(module) in rooms)


@cache
def reached(module: str) -> frozenset[str]:
    """All modules of the package that importing this one imports."""
    direct = imports(MODULES[module]) & MODULES.keys() - {module}
    return frozenset(direct).union(*(reached(one) for one in direct))


def test_nothing_imports_a_stage_or_a_script():
    names = {path.stem for path in [*STAGES, *(ROOT / "scripts").glob("*.py")]}
    for path in [*MODULES.values(), *STAGES]:
        assert not imports(path) & names, path


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_have_no_cycles(module):
    assert module not in reached(module)


def test_records_import_no_other_module():
    assert not imports(MODULES["thinksteer.records"]) & MODULES.keys()


@pytest.mark.parametrize("module", of_rooms({"methods"}))
def test_methods_know_no_model_library_and_no_disk(module):
    outer = {name.split(".")[0] for name in imports(MODULES[module])}
    assert not outer & {"transformers", "datasets", "vllm", "safetensors"}
    assert not {room(one) for one in reached(module)} & DISK


@pytest.mark.parametrize("module", of_rooms(RUNS_MODELS))
def test_code_that_runs_models_never_touches_the_artifacts(module):
    assert not {room(one) for one in reached(module)} & DISK


@pytest.mark.parametrize("module", sorted(MODULES.keys() - FOR_STAGES))
def test_only_stages_use_their_command_line(module):
    assert not imports(MODULES[module]) & FOR_STAGES


@pytest.mark.parametrize(
    "library, homes",
    [
        (
            "matplotlib",
            {
                "attribution_figures",
                "behaviour_figures",
                "confidence_figures",
                "drawing",
                "figures",
                "level_figures",
                "probe_figures",
                "sweep_figures",
            },
        ),
        ("lm_eval", {"lm_harness"}),
        ("vllm", {"engines.vllm", "engines.vllm_start", "engines.vllm_worker", "engines.vllm_processor"}),
        ("datasets", {"hub"}),
        ("sklearn", {"separability"}),
        ("gguf", {"exchange"}),
        ("openai", {"judge"}),
    ],
)
def test_some_libraries_have_one_home(library, homes):
    users = {name for name, path in MODULES.items() if any(one.split(".")[0] == library for one in imports(path))}
    assert users <= {f"thinksteer.{home}" for home in homes}


def test_the_stages_know_no_method_but_through_the_table():
    for path in STAGES:
        known = {name for name in imports(path) if name.startswith("thinksteer.methods.")}
        assert known <= {"thinksteer.methods.method"}, path


def test_stages_and_engines_do_not_name_a_method_that_came_later():
    later = [module.split(".")[-1] for module in of_rooms({"methods"}) if module.count(".") == 2]
    later = [name for name in later if name not in ("method", "thinkedit")]  # ThinkEdit's stages cite its paper
    assert later
    for path in [*STAGES, *(MODULES[one] for one in of_rooms({"engines", "stage", "steering", "generation", "sweep"}))]:
        text = path.read_text(encoding="utf-8").lower()
        assert not [name for name in later if name in text], path


def imported(command: list[str], folder: Path) -> tuple[str, set[str]]:
    """What a stage or script prints before it ends, and the heavy libraries it has imported by then."""
    started = (
        "import atexit, runpy, sys\n"
        f"sys.path[0] = {str(ROOT)!r}\n"
        f"atexit.register(lambda: print('IMPORTED', *({HEAVY!r} & sys.modules.keys())))\n"
        f"sys.argv = {command!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", started], capture_output=True, text=True, cwd=folder)
    printed, _, names = done.stdout.rpartition("IMPORTED")
    return done.stderr + printed, set(names.split())


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_flags_are_read_without_heavy_libraries(path, tmp_path):
    said, heavy = imported([str(path), "--help"], tmp_path)
    assert "usage:" in said
    assert not heavy


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--engine", "nonsense"], "argument --engine: invalid choice"),
        (["--model", "nonsense"], 'no model "nonsense"'),
        (["--dataset", "nonsense"], "--dataset nonsense: no such data set"),
        (["--dataset", "mine", "--data_file", "missing.jsonl"], "missing.jsonl: no such file"),
        (["--n_questions", "3", "--shard", "3/4"], "there are only 3 questions to divide"),
        (["--temperature", "-1"], "argument --temperature: -1 is below 0"),
    ],
)
def test_simple_errors_are_said_without_heavy_libraries(flags, message, tmp_path):
    said, heavy = imported([str(ROOT / "generate_responses.py"), *flags], tmp_path)
    assert said.startswith("error: ")
    assert message in said
    assert not heavy


@pytest.mark.parametrize("stage", ["extract_directions", "find_short_heads", "edit_weights", "analyze_results"])
def test_missing_artifacts_are_said_without_heavy_libraries(stage, tmp_path):
    said, heavy = imported([str(ROOT / f"{stage}.py")], tmp_path)
    assert said.startswith("error: ")
    assert not heavy
