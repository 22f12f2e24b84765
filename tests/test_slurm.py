"""The jobs of scripts/slurm: what is submitted, how a wrapper ends, and the whole chain on a SLURM of two nodes."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from thinksteer import store
from thinksteer.records import Record

ROOT = Path(__file__).parent.parent
LAB = ROOT / "tests" / "slurm_lab.sh"
SLURM = ROOT / "scripts" / "slurm"
MODEL, EDITED = "tiny-reasoner", "ThinkEdit-tiny-reasoner"
SITE = {"SETUP": ":", "GRES": "", "MEM": "", "CPUS": "1", "TIME": "10", "TIME_edit": "10", "TIME_report": "10"}
ENVIRONMENT = os.environ | {f"SITE_{name}": value for name, value in SITE.items()}
ENVIRONMENT |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
ENVIRONMENT |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"}
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")
needs_slurm = pytest.mark.skipif(
    not all(shutil.which(name, path=ENVIRONMENT["PATH"]) for name in DAEMONS),
    reason="SLURM is not installed: as root, bash tests/slurm_lab.sh install",
)

# The pipeline that is run twice: as jobs, and command after command. Few rows at a time, so that it can be interrupted.
SCRIPTS = {
    "responses": "generate_responses.py",
    "directions": "extract_directions.py",
    "steering": "steer_eval.py",
    "heads": "find_short_heads.py",
    "edit": "edit_weights.py",
    "evaluation": "evaluate_models.py",
    "report": "analyze_results.py",
}
RESPONSES = "--n_questions 300 --max_length 320 --max_num_seqs 4"
FLAGS = {
    "responses": RESPONSES,
    "directions": "--quantile 0.2 --match prompt_tokens",
    "steering": "--n_questions 40 --max_length 320 --direction_weight -0.4 0 0.4",
    "edit": "--n_heads 2 --intervention_weight 3",
    "evaluation": "--n_questions 60 --n_samples 2 --max_length 320 --data_seed 2",
}
TEXT = 'It\'s 5 % of $x,\n  "exactly" %a/8: steering'


def submit(*flags: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(SLURM / "submit_pipeline.sh"), *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT | environment)


def sections(flags: dict[str, str]) -> list[str]:
    return [word for stage, words in flags.items() for word in (f"{stage}:", *words.split())]


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say():
    scripts = [*ROOT.glob("scripts/**/*.sh"), *ROOT.glob("tests/*.sh"), ROOT / ".ci" / "run"]
    names = sorted(str(path.relative_to(ROOT)) for path in scripts)
    command = ["shellcheck", "--external-sources", "--source-path=SCRIPTDIR:.", *names]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout


SBATCH = """
import json, os, pathlib, sys
if sys.argv[1:] == ["show", "config"]:
    sys.exit(print(os.environ.get("CONFIG", "")))
log = pathlib.Path(sys.argv[0]).parent.parent / "calls"
with log.open("a") as file:
    print(json.dumps([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]), file=file)
print(len(log.read_text().splitlines()))
sys.exit("--fail" in sys.argv and "scripts/slurm/report.sh" in sys.argv)
"""
STAGE = """
import os, pathlib, signal, sys, time
got = []
def note(number, frame):
    got.append(int(number))
    pathlib.Path(f"got{len(got)}").touch()
signal.signal(signal.SIGUSR1, note)
signal.signal(signal.SIGTERM, note)
pathlib.Path("started").write_text(repr(sys.argv[1:]))
expected = eval(os.environ["EXPECTED"])
while len(got) < len(expected):
    time.sleep(0.01)
sys.exit(int(os.environ["STATUS"]) if got == expected else 99)
"""


@pytest.fixture
def calls(tmp_path) -> Iterator[Callable[[], list[list[str]]]]:
    """Stand-ins for sbatch and its kin, first on PATH: reads the calls made so far, each [name, *arguments]."""
    log = tmp_path / "calls"
    fake = tmp_path / "bin" / "sbatch"
    fake.parent.mkdir()
    fake.write_text(f"#!{sys.executable}{SBATCH}")
    fake.chmod(0o755)
    for name in ("scancel", "scontrol"):
        (fake.parent / name).symlink_to(fake)
    yield lambda: [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def of_stage(call: list[str]) -> tuple[str, list[str], list[str]]:
    """The stage of a call of sbatch, sbatch's own flags, and the stage's."""
    [index] = [index for index, word in enumerate(call) if word.startswith("scripts/slurm/")]
    return Path(call[index]).stem, call[1:index], call[index + 1 :]


def test_a_dry_run_submits_nothing_and_prints_lines_that_do(calls, tmp_path):
    asked = ("--model", "org/m", "--dataset", "gsm8k", "--artifacts", tmp_path / "a b", "--n_shards", "8")
    stages = ["responses:", "--instruction", TEXT, "edit:", "edit:", "--control_heads", "random", "--name", "m.random"]
    stages += ["evaluation:", "evaluation:", "--dataset", "MATH-500"]
    here = {"PATH": f"{tmp_path / 'bin'}:{ENVIRONMENT['PATH']}", "SITE_LOGS": str(tmp_path / "my logs")}
    site = {"SITE_PARTITION": "a100", "SITE_GRES": "gpu:2", "SITE_TIME_heads": "5", "SITE_SBATCH": "--qos=low --nice"}
    printed = submit("--dry_run", *asked, *stages, **here, **site).stdout
    assert not calls() and not (tmp_path / "my logs").exists()

    subprocess.run(["bash", "-euc", printed], env=ENVIRONMENT | here, check=True)
    pasted = calls()
    assert submit(*asked, *stages, **here, **site).stdout == printed
    jobs = [of_stage(call) for call in pasted]
    assert [stage for stage, _, _ in jobs] == (
        ["responses", "directions", "steering", "steering", "heads", "edit", "edit"] + ["evaluation"] * 6 + ["report"]
    )
    waits = [[word.partition("afterok:")[2] for word in flags if "afterok" in word] for _, flags, _ in jobs]
    edits, evaluations = "6:7", "8:9:10:11:12:13"
    assert waits == [[], ["1"], ["2"], ["2"], ["2"], ["5"], ["5"], [], [], *[[edits]] * 4, [f"3:4:{evaluations}"]]

    root = ["--artifacts", str(tmp_path / "a b")]
    for (stage, flags, own), waiting in zip(jobs, waits, strict=True):
        array = stage in ("responses", "steering", "evaluation")
        assert ("--array=0-7" in flags) == (own[-2:] == ["--shard", "%a/8"]) == array
        assert ("--gres=gpu:2" in flags) == (stage not in ("edit", "report"))
        assert ("--kill-on-invalid-dep=yes" in flags) == bool(waiting)
        assert {"--partition=a100", "--qos=low", "--nice", "--parsable"} < set(flags)
        assert f"--time={'5' if stage == 'heads' else '10'}" in flags
        assert f"--output={here['SITE_LOGS']}/%x-{'%A_%a' if array else '%j'}.out" in flags
        assert " ".join(root) in " ".join(own)
    owned = [own for _, _, own in jobs]
    assert owned[0] == ["--model", "org/m", "--dataset", "gsm8k", *root, "--instruction", TEXT, "--shard", "%a/8"]
    assert owned[3][6:-2] == ["--layer", "each", "--direction_weight", "-1", "1"]
    assert owned[6] == ["--model", "org/m", *root, "--control_heads", "random", "--name", "m.random"]
    assert [own[1] for own in owned[7:13]] == [name for name in ("org/m", "ThinkEdit-m", "m.random") for _ in "12"]
    assert owned[8][6:-2] == ["--dataset", "MATH-500"]
    assert owned[13] == root


def test_a_chain_that_cannot_be_submitted_whole_is_taken_back(calls, tmp_path):
    here = {"PATH": f"{tmp_path / 'bin'}:{ENVIRONMENT['PATH']}", "SITE_LOGS": str(tmp_path)}
    assert submit(**here, SITE_SBATCH="--fail").returncode == 1
    assert calls()[-1] == ["scancel", *map(str, range(1, 9))]


@pytest.mark.parametrize(
    "flags",
    [
        ["--modle", "m"],
        ["--model"],
        ["--n_samples", "2"],
        ["response:", "--seed", "1"],
        ["--n_shards", "0"],
        ["--n_shards", "eight"],
    ],
)
def test_what_cannot_be_understood_is_not_submitted(flags, calls, tmp_path):
    done = submit(*flags, PATH=f"{tmp_path / 'bin'}:{ENVIRONMENT['PATH']}", SITE_LOGS=str(tmp_path))
    assert done.returncode != 0 and flags[0] in done.stderr and not calls()


@pytest.mark.parametrize(
    ("limit", "allowed", "refused"),
    [
        ("MaxArraySize            = 5\nMaxJobCount = 10000", 5, "6 tasks of an array, this cluster has at most 5"),
        ("MaxArraySize = 1001\nSchedulerParameters = bf_max=9,max_array_tasks=5", 5, r"at most 5 \(max_array_tasks\)"),
        (
            "MaxArraySize = 1001\nMaxJobCount             = 30",
            5,
            r"34 jobs, this cluster has at most 30 \(MaxJobCount\)",
        ),
    ],
)
def test_more_jobs_than_the_cluster_takes_are_refused_before_the_first(limit, allowed, refused, calls, tmp_path):
    here = {"PATH": f"{tmp_path / 'bin'}:{ENVIRONMENT['PATH']}", "SITE_LOGS": str(tmp_path / "logs"), "CONFIG": limit}
    for more in ([], ["--dry_run"]):
        done = submit("--n_shards", allowed + 1, *more, **here)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and not done.stdout
        assert re.match(f"error: --n_shards {allowed + 1}: .*{refused}", done.stderr)
    assert not calls() and not (tmp_path / "logs").exists()
    assert submit("--n_shards", allowed, **here).returncode == 0
    assert len(calls()) == 9


@pytest.mark.parametrize(
    ("sent", "status", "requeued"),
    [
        ((signal.SIGUSR1,), 130, True),
        ((signal.SIGUSR1, signal.SIGUSR1), 130, True),
        ((signal.SIGTERM,), 130, False),
        ((signal.SIGUSR1,), 2, False),
        ((signal.SIGUSR1,), 0, False),
        ((), 130, False),
        ((), 2, False),
    ],
)
def test_a_job_queues_again_exactly_when_its_stage_stopped_because_it_was_asked_to(
    sent, status, requeued, calls, tmp_path
):
    """The stage is a stand-in that ends with `status` once it got what was sent."""
    job = start_job(tmp_path, sent, status, "--overwrite")
    for count, request in enumerate(sent, start=1):
        job.send_signal(request)
        until((tmp_path / f"got{count}").exists, 10)
    assert job.wait(timeout=10) == status
    started = ["-u", "generate_responses.py", "--instruction", TEXT, "--shard", "2/8", "--overwrite"]
    assert (tmp_path / "started").read_text() == repr(started)
    assert calls() == [["scontrol", "requeue", "10_2"]] * requeued


def test_a_job_that_queued_again_goes_on_with_what_it_was_to_overwrite(tmp_path, calls):
    assert start_job(tmp_path, (), 0, "--overwrite", "--seed", "0", SLURM_RESTART_COUNT="1").wait(timeout=10) == 0
    started = ["-u", "generate_responses.py", "--instruction", TEXT, "--shard", "2/8", "--seed", "0"]
    assert (tmp_path / "started").read_text() == repr(started)


def start_job(tmp_path: Path, sent: tuple[int, ...], status: int, *flags: str, **more: str) -> subprocess.Popen:
    python = tmp_path / "bin" / "python"
    python.write_text(f"#!{sys.executable}{STAGE}")
    python.chmod(0o755)
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    slurm = {"JOB_ID": "12", "ARRAY_JOB_ID": "10", "ARRAY_TASK_ID": "2", "JOB_NODELIST": "n1", "JOB_NUM_NODES": "1"}
    environment = ENVIRONMENT | {f"SLURM_{name}": value for name, value in slurm.items()}
    environment |= {"EXPECTED": repr(list(map(int, sent))), "STATUS": str(status)} | more
    environment["PATH"] = f"{tmp_path / 'bin'}:{environment['PATH']}"
    command = ["bash", "scripts/slurm/responses.sh", "--instruction", TEXT, "--shard", "%a/8", *flags]
    job = subprocess.Popen(command, cwd=tmp_path, env=environment)
    until((tmp_path / "started").exists, 10)
    return job


class Lab:
    """A running SLURM, and questions to it."""

    def __init__(self, folder: Path) -> None:
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "SITE_LOGS": str(self.logs)}

    def call(self, *command: object) -> str:
        words = list(map(str, command))
        done = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT | self.environment, cwd=ROOT)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def jobs(self) -> dict[str, tuple[str, str]]:
        """Of every job and array task, pending ones too, since the lab was started: its stage and state."""
        lines = self.call("squeue", "--noheader", "--states=all", "--array", "--format=%i %j %T").splitlines()
        return {job: (name.partition("-")[0], state) for job, name, state in map(str.split, lines)}

    def wait(self) -> None:
        until(lambda: not self.call("squeue", "--noheader"), 300)

    def log(self, job: str) -> str:
        [path] = self.logs.glob(f"*-{job}.out")
        return path.read_text(encoding="utf-8")


def free_ports() -> int:
    """The first of three free ports in a row."""
    for first in range(20000 + os.getpid() % 10000, 40000, 3):
        sockets = [socket.socket() for _ in range(3)]
        try:
            for offset, one in enumerate(sockets):
                one.bind(("127.0.0.1", first + offset))
            return first
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
    raise AssertionError("no free ports")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    folder = Path(tempfile.mkdtemp(prefix="lab-"))  # pytest's folders are too long for sockets
    lab = Lab(folder)
    try:
        lab.call("bash", LAB, "start", folder, free_ports())
        yield lab
    finally:
        lab.call("bash", LAB, "stop", folder)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Iterator[Callable[[], Path]]:
    """Runs the pipeline's commands one after another in the background; calling waits for its artifacts."""
    root = tmp_path_factory.mktemp("plain")
    commands = []
    for stage, script in SCRIPTS.items():
        models = f"--model {MODEL} {EDITED}" if stage == "evaluation" else ""
        commands.append(f"python {script} --artifacts {root} {models} {FLAGS.get(stage, '')}")
    with open(root / "log", "w") as log:
        chain = subprocess.Popen(
            ["bash", "-ec", "\n".join(commands)], env=ENVIRONMENT, cwd=ROOT, stdout=log, stderr=log
        )

    def finished() -> Path:
        assert chain.wait(timeout=300) == 0, (root / "log").read_text()
        return root

    yield finished
    chain.kill()


def lines(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def restarts(lab: Lab, job: str) -> list[str]:
    """What each run of a job says at its start, in the one log of all of them."""
    return re.findall(r" job \S+ on n\d, restart (\d)", lab.log(job))


def records(path: Path) -> dict[tuple[str, int], Record]:
    """By (id, sample); reading already refuses records that are there twice, and a missing shard."""
    return {(record.id, record.sample): record for record in store.read_records(path)}


@needs_slurm
def test_the_chain_of_jobs_makes_what_the_plain_commands_make_though_tasks_are_requeued(plain, lab, tmp_path):
    done = submit("--artifacts", tmp_path, "--n_shards", 2, *sections(FLAGS), **lab.environment)
    assert done.returncode == 0, done.stderr
    array = next(job for job, (stage, _) in lab.jobs().items() if stage == "responses").partition("_")[0]
    tasks = [f"{array}_{index}" for index in range(2)]
    parts = [store.responses_path(tmp_path, MODEL, "arithmetic", (index, 2)) for index in range(2)]
    disturbances = {0: ("scancel", "--batch", "--signal=USR1", tasks[0]), 1: ("scontrol", "requeue", tasks[1])}

    def disturbed() -> bool:
        """Each task is as soon as it has begun: it may be through before the other one starts."""
        for index in [index for index in disturbances if lines(parts[index]) >= 20]:
            lab.call(*disturbances.pop(index))
        return not disturbances

    until(disturbed)
    stopped: dict[str, int] = {}  # task -> its records when it starts again

    def gone_on() -> bool:
        for task, part in zip(tasks, parts, strict=True):
            if restarts(lab, task) == ["0", "1"]:
                stopped.setdefault(task, lines(part))
        return len(stopped) == 2

    until(gone_on)
    assert all(20 <= count < 150 for count in stopped.values())

    lab.wait()
    assert {state for _, state in lab.jobs().values()} == {"COMPLETED"}
    root = plain()
    paths = [store.responses_path(Path(), MODEL, "arithmetic")]
    paths += [store.steering_path(Path(), MODEL, "arithmetic", "thinking_length_attn", w, None) for w in (-0.4, 0, 0.4)]
    paths += [store.evaluation_path(Path(), model, "arithmetic", "") for model in (MODEL, EDITED)]
    assert [len(records(tmp_path / path)) for path in paths] == [300, 40, 40, 40, 120, 120]
    for path in paths:
        assert records(tmp_path / path) == records(root / path), path
    summary = store.steering_summary_path(Path(), MODEL, "arithmetic", "thinking_length_attn")
    assert store.read_json(tmp_path / summary) == store.read_json(root / summary)
    tables = {path.name: path.read_text(encoding="utf-8") for path in store.reports_path(root).glob("*.md")}
    assert len(tables) > 5
    assert tables == {path.name: path.read_text(encoding="utf-8") for path in store.reports_path(tmp_path).glob("*.md")}


@needs_slurm
def test_a_job_that_gets_usr1_goes_on_by_itself_and_a_cancelled_one_when_submitted_again(plain, lab, tmp_path):
    part = store.responses_path(tmp_path, MODEL, "arithmetic", (1, 2))
    command = ["sbatch", "--parsable", "--array=1", f"--output={lab.logs}/%x-%A_%a.out", "scripts/slurm/responses.sh"]
    command += ["--artifacts", tmp_path, *RESPONSES.split(), "--shard", "%a/2"]
    task = f"{lab.call(*command)}_1"
    until(lambda: lines(part) >= 20)
    lab.call("scancel", "--batch", "--signal=USR1", task)
    until(lambda: "queue" in lab.log(task))
    assert "stopped; run the same command" in lab.log(task)
    stopped = lines(part)
    assert 20 <= stopped < 100

    until(lambda: lines(part) >= stopped + 20)
    assert restarts(lab, task) == ["0", "1"]
    lab.call("scancel", task)
    lab.wait()
    assert lab.jobs()[task][1] == "CANCELLED"
    assert stopped + 20 <= lines(part) < 150

    task = f"{lab.call(*command)}_1"
    lab.wait()
    assert lab.jobs()[task][1] == "COMPLETED" and restarts(lab, task) == ["0"]
    together = records(store.responses_path(plain(), MODEL, "arithmetic"))
    alone = {(record.id, record.sample): record for record in store.read_records(part)}
    assert alone == {key: together[key] for key in list(together) if key in alone} and len(alone) == 150


@needs_slurm
def test_a_failing_stage_is_not_requeued_and_takes_what_waits_for_it_along(lab, tmp_path):
    before = lab.jobs().keys()
    flags = ("--artifacts", tmp_path, "--model", "nobody", "responses:", "--instruction", TEXT)
    assert submit(*flags, **lab.environment).returncode == 0
    lab.wait()
    made = {job: found for job, found in lab.jobs().items() if job not in before}
    states = sorted(made.values())
    cancelled = ("directions", "edit", "evaluation", "heads", "report", "steering", "steering")
    assert states == sorted(
        [*((stage, "CANCELLED") for stage in cancelled), ("evaluation", "FAILED"), ("responses", "FAILED")]
    )
    [job] = [job for job, (stage, _) in made.items() if stage == "responses"]
    log = lab.log(f"nobody-{job}")
    assert 'no model "nobody"' in log
    [command] = re.findall("restart 0: (.*)", log)
    words = lab.call("bash", "-c", f"printf '%s\\0' {command}").split("\0")
    assert words[words.index("--instruction") + 1] == TEXT
    assert re.search("Restarts=0 .* ExitCode=2:0", lab.call("scontrol", "show", "job", "--oneliner", job))


@needs_slurm
@pytest.mark.parametrize(
    ("shards", "site", "refused"),
    [
        (1002, {}, "at most 1001 (MaxArraySize): give fewer"),
        (2, {"SITE_PARTITION": "nope"}, "invalid partition specified: nope"),
        (2, {"SITE_MEM": "32G"}, "Memory specification can not be satisfied"),
        (2, {"SITE_TIME_report": "tomorrow"}, "nothing is left of the 8 jobs before it"),
    ],
)
def test_what_the_cluster_refuses_leaves_no_job(shards, site, refused, lab, tmp_path):
    before = lab.jobs().keys()
    done = submit("--artifacts", tmp_path, "--n_shards", shards, **lab.environment | site)
    assert done.returncode != 0 and refused in done.stderr
    lab.wait()
    # One that is refused for its memory is kept as failed.
    assert {state for job, (_, state) in lab.jobs().items() if job not in before} <= {"CANCELLED", "FAILED"}


@needs_slurm
def test_one_of_scripts_is_a_job_too(lab, tmp_path):
    output = f"--output={lab.logs}/%x-%j.out"
    flags = ("split_arithmetic", tmp_path / "made here", "--n_questions", 2)
    job = lab.call("sbatch", "--parsable", output, ROOT / "scripts" / "slurm" / "script.sh", *flags)
    lab.wait()
    assert lab.jobs()[job][1] == "COMPLETED", lab.log(job)
    assert len(list((tmp_path / "made here").glob("*.jsonl"))) == 4


@needs_slurm
@pytest.mark.skipif(not shutil.which("ray"), reason="Ray is not installed: pip install ray")
def test_a_job_of_two_nodes_has_one_ray_over_both(lab, tmp_path):
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    (tmp_path / "stage.py").write_text(
        "import time, ray\nray.init()\n"
        "@ray.remote(num_cpus=1)\ndef where():\n    time.sleep(3)\n    return ray.get_runtime_context().get_node_id()\n"
        "print('ran on', len(set(ray.get([where.remote() for _ in 'ab']))))\n"
    )
    (tmp_path / "job.sh").write_text("#!/usr/bin/env bash\nsource scripts/slurm/stage.sh stage.py\n")
    size = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1")
    job = lab.call(
        "sbatch", "--parsable", *size, f"--chdir={tmp_path}", f"--output={lab.logs}/%x-%j.out", tmp_path / "job.sh"
    )
    lab.wait()
    assert lab.jobs()[job][1] == "COMPLETED" and "ran on 2" in lab.log(job)
