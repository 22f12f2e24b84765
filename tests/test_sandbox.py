"""The sandbox: honest programs run as anywhere else; hostile ones get nothing done, and leave nothing behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from thinksteer import confine
from thinksteer import sandbox as sandbox_module
from thinksteer.confine import CLONE, MACHINES
from thinksteer.records import InputError
from thinksteer.sandbox import Sandbox
from thinksteer.sandbox_runner import Ran

ROOT = Path(__file__).resolve().parents[1]
MACHINE = os.uname().machine
COLUMN = MACHINES.get(MACHINE, (0,))[0]  # of the tables of system calls
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or MACHINE not in MACHINES, reason="programs are only run on Linux (x86_64, aarch64)"
)

MARK = f"mark{uuid.uuid4().hex}"
LIMIT_S = 0.4


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """One for all tests: it must survive every one. Its processes carry MARK in their environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_LIBRARY_PATH", f"{os.environ.get('LD_LIBRARY_PATH', '')}:/{MARK}")
        with Sandbox() as sandbox:
            sandbox.start()
            yield sandbox


def marked() -> set[int]:
    """The processes that the sandbox started, and all that came of them."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if MARK.encode() in (folder / "environ").read_bytes():
                found.add(int(folder.name))
        except OSError:
            continue
    return found


def run(sandbox: Sandbox, code: str, text: str = "", function: str | None = None, limit_s: float = 10.0) -> Ran:
    return sandbox.run(code, text, function, limit_s=limit_s, max_output=1000)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    file = tmp_path / "victim"
    file.write_text("untouched")
    file.chmod(0o666)
    return file


@pytest.fixture
def nothing_left(sandbox: Sandbox, victim: Path) -> Iterator[None]:
    """After a hostile program: no process, no file, no change, and the sandbox goes on as before."""
    before = victim.stat()
    yield
    assert marked() == {sandbox._process.pid}
    for folder in (ROOT, Path.home(), Path(tempfile.gettempdir()), Path("/dev/shm"), victim.parent):
        assert not [name for name in os.listdir(folder) if MARK in name], folder
    assert os.listdir(victim.parent) == ["victim"]
    assert victim.read_text() == "untouched"
    assert (victim.stat().st_mode, victim.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert run(sandbox, "print(int(input()) + 1)", "41\n") == Ran("ok", b"42\n")


HONEST = {
    "a line read": ("print(int(input()) + 1)", "41\n", "42\n"),
    "the main guard": ("def main():\n print(input())\nif __name__ == '__main__':\n main()", "x\n", "x\n"),
    "bytes": ("import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))", "1 2\n3\n", "6\n"),
    "readline": ("import sys\ninput = sys.stdin.readline\nprint(int(input()) * int(input()))", "6\n7", "42\n"),
    "lines": ("import sys\nfor line in sys.stdin: print(line.strip()[::-1])", "ab\ncd\n", "ba\ndc\n"),
    "descriptor 0": ("n, *a = map(int, open(0).read().split())\nprint(n, sum(a))", "3\n1 2 3\n", "3 6\n"),
    "its size": ("import os\nprint(len(os.read(0, os.fstat(0).st_size)))", "12345", "5\n"),
    "writes": ("import sys\nsys.stdout.write('a\\n'); sys.stdout.buffer.write(b'')\nprint('ü')", "", "a\nü\n"),
    "imports": (
        "from collections import Counter, deque, defaultdict\nimport heapq, functools, itertools, bisect, math, re\n"
        "import string, typing, fractions, decimal, datetime\nimport collections.abc\n"
        "print(heapq.nsmallest(1, [3, 1]), math.gcd(4, 6), bisect.bisect([1, 2], 1), len(string.digits))\n"
        "print(datetime.datetime.strptime('2024-02-01', '%Y-%m-%d').month, fractions.Fraction(2, 4))",
        "",
        "[1] 2 1 10\n2 1/2\n",
    ),
    "names not imported": ("print(gcd(4, 6), deque([1]).pop(), ceil(1.5), List[int] is not None)", "", "2 1 2 True\n"),
    "depth": ("def f(n): return n and 1 + f(n - 1)\nprint(f(40000))", "", "40000\n"),
    "cached depth": ("@lru_cache(None)\ndef f(n): return n and 1 + f(n - 1)\nprint(f(400))", "", "400\n"),
    "a thread with a deep stack": (
        "import sys, threading\nsys.setrecursionlimit(1 << 25)\nthreading.stack_size(1 << 28)\n"
        "def f(n): return n and 1 + f(n - 1)\nthreading.Thread(target=lambda: print(f(60000))).start()",
        "",
        "60000\n",
    ),
    "output at exit": ("import atexit\natexit.register(lambda: print('end'))", "", "end\n"),
    "sys.exit": ("import sys\nprint(1)\nsys.exit(1)", "", "1\n"),
    "exit": ("print(1)\nexit()", "", "1\n"),
    "os._exit": ("import os\nprint(1, flush=True)\nos._exit(0)", "", "1\n"),
    "another stdout": (
        "import io, os, sys\nbuffer = io.StringIO()\nreal, sys.stdout = sys.stdout, buffer\nprint('x')\n"
        "os.write(real.fileno(), buffer.getvalue().encode())",
        "",
        "x\n",
    ),
    "a long number": ("print(len(str(10 ** 20000)))", "", "20001\n"),
    "a missing module": ("try:\n import nothing\nexcept ImportError:\n print('none')", "", "none\n"),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_programs_run_as_anywhere_else(sandbox: Sandbox, name: str) -> None:
    code, text, printed = HONEST[name]
    assert run(sandbox, code, text) == Ran("ok", printed.encode())


def test_a_thousand_lines_of_input_and_output_pass_through(sandbox: Sandbox) -> None:
    text = "".join(f"{n}\n" for n in range(200_000))
    ran = sandbox.run("for line in open(0): print(line, end='')", text, limit_s=20, max_output=len(text))
    assert ran == Ran("ok", text.encode())


FUNCTIONS = {
    "of Solution": ("class Solution:\n def f(self, a: List[int], b: str) -> int:\n  return sum(a) + len(b)", b"8"),
    "alone": ("def f(a, b):\n return len(a), b", b'[3, "ab"]'),
    "that prints": ("def f(a, b):\n print('debug')\n return a", b"[1, 2, 3]"),
    "beside a main guard": ("def f(a, b):\n return 1\nif __name__ == '__main__':\n raise ValueError", b"1"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_called_with_its_arguments_and_its_result_returned(sandbox: Sandbox, name: str) -> None:
    code, result = FUNCTIONS[name]
    assert run(sandbox, code, '[1, 2, 3]\n"ab"', "f") == Ran("ok", result)


@pytest.mark.parametrize("code", ["def g(): pass", "def f(): return {1, 2}", "def f(): 1 / 0", "def f(:", "f = 1"])
def test_a_function_without_a_result_fails(sandbox: Sandbox, code: str) -> None:
    assert run(sandbox, code, "1", "f").ended == "failed"


def test_what_a_run_does_is_the_same_every_time_and_unknown_to_the_next(sandbox: Sandbox) -> None:
    code = "import random, sys\nprint(random.random(), hash('a'), hasattr(sys, 'left'))\nsys.left = 1"
    first = run(sandbox, code)
    assert first.ended == "ok" and first.output.endswith(b"False\n")
    assert run(sandbox, code) == first
    with Sandbox() as other:
        assert run(other, code) == first


REFUSAL = """
import ctypes, os, resource
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    if getattr(libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)
try:
    {act}
except PermissionError:
    print("refused")
"""
# What the kernel must refuse, each also where it would do no harm: signals are 0, files are opened for nothing.
REFUSED = {
    "fork": "os.fork()",
    "fork and leave the session": "os.fork() or os.setsid()",
    "a raw clone": "call('syscall', {clone}, 17, 0, 0, 0, 0)",
    "a process among the threads": "call('syscall', {clone}, 0x3d0f00 & ~0x10000, 0, 0, 0, 0)",
    "a new namespace": "call('unshare', 0x10000000)",
    "a shell": "os.execv('/bin/sh', ['sh', '-c', 'true'])",
    "a spawned shell": "os.posix_spawn('/bin/sh', ['sh', '-c', 'true'], dict())",
    "reading a file": "open('/etc/passwd')",
    "reading the file of answers": "open('{victim}')",
    "listing a folder": "os.listdir('/')",
    "the runner's memory": "open('/proc/{runner}/mem', 'rb')",
    "looking into the runner": "call('process_vm_readv', {runner}, None, 0, None, 0, 0)",
    "tracing the runner": "call('ptrace', 16, {runner}, None, None)",
    "writing here": "open('{mark}', 'w')",
    "writing to the temporary folder": "open('/tmp/{mark}', 'w')",
    "writing to shared memory": "open('/dev/shm/{mark}', 'w')",
    "writing at home": "open('{home}/{mark}', 'w')",
    "writing to a file of the repository": "open('{root}/pyproject.toml', 'a')",
    "writing by a raw call": "call('syscall', 437, -100, b'/tmp/{mark}', bytes([65, 0, 0, 0] + [0] * 20), 24)",
    "truncating a file": "os.truncate('{victim}', 0)",
    "deleting a file": "os.unlink('{victim}')",
    "renaming a file": "os.rename('{victim}', '{victim}2')",
    "changing a file's mode": "os.chmod('{victim}', 0o777)",
    "changing a file's date": "os.utime('{victim}', (0, 0))",
    "making a folder": "os.mkdir('/tmp/{mark}')",
    "linking": "os.symlink('{victim}', '/tmp/{mark}')",
    "a file in memory": "os.memfd_create('{mark}')",
    "a pipe": "os.pipe()",
    "another place": "os.chdir('/')",
    "a TCP socket": "call('socket', 2, 1, 0)",
    "a UDP socket, as for names": "call('socket', 2, 2, 0)",
    "a local socket": "call('socket', 1, 1, 0)",
    "a pair of sockets": "call('socketpair', 1, 1, 0, (ctypes.c_int * 2)())",
    "signalling the runner": "os.kill({runner}, 0)",
    "signalling everyone": "os.kill(-1, 0)",
    "signalling its group": "os.killpg(0, 0)",
    "signalling by descriptor": "call('syscall', 434, {runner}, 0)",
    "an io_uring": "call('syscall', 425, 1, bytes(120))",
    "higher limits": "call('setrlimit', resource.RLIMIT_CPU, (ctypes.c_ulong * 2)(99, 99))",
    "outliving the runner": "call('prctl', 1, 0, 0, 0, 0)",
    "another user": "os.setuid(12345)",
    "a mount": "call('mount', b'none', b'/mnt', b'tmpfs', 0, None)",
    "a new descriptor for the output": "os.dup2(1, 2)",
}


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("name", REFUSED)
def test_the_kernel_refuses_all_but_computing(sandbox: Sandbox, victim: Path, name: str) -> None:
    act = REFUSED[name].format(
        clone=CLONE[COLUMN],
        runner=sandbox._process.pid,
        victim=victim,
        root=ROOT,
        home=Path.home(),
        mark=MARK,
    )
    assert run(sandbox, REFUSAL.format(act=act)) == Ran("ok", b"refused\n")


THREAD = "import threading\ndef f():\n while True: pass\nthreading.Thread(target=f).start()"
STOPPED = {
    "a loop": ("while True: pass", "time"),
    "waiting for nothing": ("import threading\nthreading.Event().wait()", "time"),
    "deaf to signals": (
        "import signal\nfor n in {*range(1, 32)} - {9, 19}: signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
        "time",
    ),
    "a loop in C": ("sum(repeat(1))", "time"),
    "a loop with its output closed": ("import os\nos.close(1)\nwhile True: pass", "time"),
    "a thread that stays": (
        "import threading\ndef f():\n while True: pass\nthreading.Thread(target=f).start()",
        "time",
    ),
    "a thread without its main one": (
        THREAD + f"\nimport ctypes\nctypes.CDLL(None).syscall({(60, 93)[COLUMN]}, 0)",
        "time",
    ),
    "a loop at exit": ("import atexit\n@atexit.register\ndef f():\n while True: pass", "time"),
    "endless errors": ("import sys\nwhile True: sys.stderr.write('x' * 10**6)", "time"),
    "endless output": ("while True: print('x' * 10**6)", "output"),
    "endless threads": (
        "import threading\nthreading.stack_size(32768)\ne = threading.Event()\n"
        "for _ in range(2000): threading.Thread(target=e.wait).start()",
        "threads",
    ),
    "all memory": ("bytearray(8 << 30)", "failed"),
    "all memory, address by address": (
        "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.malloc.restype = ctypes.c_void_p\n"
        "for _ in range(8): assert libc.malloc(ctypes.c_size_t(1 << 30))",
        "failed",
    ),
    "depth without end": ("def f(): f()\nf()", "failed"),
    "depth without end, unguarded": (
        "sys.setrecursionlimit(10**9)\nf = lambda x: [x].sort(key=f)\nf(1)",
        "failed",
    ),
    "a crash": ("import ctypes\nctypes.string_at(0)", "failed"),
    "an error after the output": ("print(1)\n1 / 0", "failed"),
    "a status": ("import os\nos._exit(3)", "failed"),
    "no Python": ("this is no Python", "failed"),
    "brackets without end": ("(" * 100_000, "failed"),
    "half a character": ("print('\ud800')", "failed"),
    "input read twice": ("input()\ninput()", "failed"),
}


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("name", STOPPED)
def test_what_does_not_end_well_is_ended(sandbox: Sandbox, name: str) -> None:
    code, ended = STOPPED[name]
    start = time.monotonic()
    assert run(sandbox, code, "x\n", limit_s=LIMIT_S if ended == "time" else 20.0).ended == ended
    assert time.monotonic() - start < 20


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.skipif(MACHINE != "x86_64", reason="other machines have no second table of system calls")
def test_calls_by_another_table_do_not_pass_the_filter(sandbox: Sandbox) -> None:
    # getpid is allowed, but is another call (mkdir) by the number that 32-bit code has for it; x32's has a bit more.
    native = "import ctypes\nprint(ctypes.CDLL(None).syscall({}) > 0)"
    assert run(sandbox, native.format(39)) == Ran("ok", b"True\n")
    assert run(sandbox, native.format(39 | 0x40000000)) == Ran("ok", b"False\n")
    machine_code = (
        "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.mmap.restype = ctypes.c_void_p\n"
        "page = libc.mmap(None, 4096, 7, 0x22, -1, 0)\ncode = bytes.fromhex('{}')\n"
        "ctypes.memmove(page, code, len(code))\n"
        "print(ctypes.CFUNCTYPE(ctypes.c_int)(page)() > 0)"
    )
    assert run(sandbox, machine_code.format("b8270000000f05c3")) == Ran("ok", b"True\n")  # syscall getpid
    assert run(sandbox, machine_code.format("b814000000cd80c3")).ended == "failed"  # int 0x80 getpid


@pytest.mark.usefixtures("nothing_left")
def test_a_listener_on_this_machine_is_out_of_reach(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = b"\2\0" + listener.getsockname()[1].to_bytes(2, "big") + bytes([127, 0, 0, 1]) + bytes(8)
        code = (
            "import ctypes\nlibc = ctypes.CDLL(None)\n"
            f"for fd in [libc.socket(2, 1, 0), *range(100)]: print(libc.connect(fd, {address!r}, 16))"
        )
        assert set(run(sandbox, code).output.split()) == {b"-1"}
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_program_holds_its_input_and_output_and_nothing_else(sandbox: Sandbox) -> None:
    code = "import os\nfor fd in range(1000):\n try:\n  os.fstat(fd); print(fd)\n except OSError: pass"
    assert run(sandbox, code) == Ran("ok", b"0\n1\n2\n")
    ours = {
        "PYTHONHASHSEED",
        "PYTHONUTF8",
        "OMP_NUM_THREADS",
        "OMP_WAIT_POLICY",
        "OPENBLAS_NUM_THREADS",
        "LD_LIBRARY_PATH",
        "LC_CTYPE",
    }
    assert set(run(sandbox, "import os\nprint(*os.environ)").output.decode().split()) <= ours


def test_a_program_ends_with_the_runner_and_that_is_no_verdict() -> None:
    with Sandbox() as sandbox:
        sandbox.start()
        pid = sandbox._process.pid
        caught: list[BaseException] = []

        def wait() -> None:
            try:
                run(sandbox, "import threading\nthreading.Event().wait()", limit_s=60)
            except RuntimeError as error:
                caught.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        children = Path(f"/proc/{pid}/task/{pid}/children")
        while not (child := children.read_text().split()):
            time.sleep(0.01)
        time.sleep(0.2)  # until it is confined
        os.kill(pid, signal.SIGKILL)
        thread.join()
        assert "killed from outside" in str(caught[0])
        deadline = time.monotonic() + 5
        while os.path.exists(f"/proc/{child[0]}/fd/0") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not os.path.exists(f"/proc/{child[0]}/fd/0")  # a zombie nobody reaps has none
        assert run(sandbox, "print(1)") == Ran("ok", b"1\n")


def test_where_confining_fails_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = (
        "import thinksteer.sandbox_runner as r\ndef confine(*_): raise OSError('no seccomp here')\nr.confine = confine"
    )
    monkeypatch.setattr(sandbox_module, "RUNNER", f"{refusing}\nr.serve({{}})")
    refused = r"cannot be confined here \(OSError: no seccomp here\), and are not run"
    with Sandbox() as sandbox, pytest.raises(InputError, match=refused):
        sandbox.start()
    assert sandbox._process is None


def test_a_machine_whose_calls_are_unknown_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_module, "MACHINES", {})
    with pytest.raises(InputError, match="cannot be confined here"):
        Sandbox().start()


def test_a_filter_that_lets_files_be_opened_is_noticed() -> None:
    code = (
        "import os\nfrom thinksteer import confine\nconfine.ALLOWED['openat'] = (257, 56)\n"
        "try:\n confine.confine(5, os.getppid())\nexcept OSError as error:\n print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "the filter was accepted, but is not in force\n"


def test_the_powers_of_a_superuser_are_given_up_and_limits_set_besides_the_filter() -> None:
    code = (
        "import os\nfrom thinksteer import confine\nconfine.ALLOWED['openat'] = (257, 56)\nconfine._check = int\n"
        "confine.confine(5, os.getppid())\nprint(open('/proc/self/status').read(), open('/proc/self/limits').read())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    fields = dict(line.split(":\t") for line in done.stdout.split("\n") if ":\t" in line)
    assert [int(fields[name], 16) for name in ("CapEff", "CapPrm", "NoNewPrivs", "Seccomp")] == [0, 0, 1, 2]
    for limit, most in (("Max cpu time", 5), ("Max file size", 0), ("Max address space", confine.MEMORY_BYTES)):
        assert re.search(rf"{limit} +{most} +{most} ", done.stdout), limit
