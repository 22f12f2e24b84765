"""math-verify, and the process that runs it for `grading.Grader`: what it is asked may take forever or all memory.

Run as a program it serves verdicts over a pipe until the pipe closes; the kernel ends it at the time limit.
"""

import contextlib
import logging
import os
import resource
import signal
import sys
from multiprocessing.connection import Connection

from thinksteer import equality

MEMORY_BYTES = 4 << 30  # powers of powers ask for all there is


def verify(prediction: str, reference: str) -> bool:
    """What math-verify says. It may hang, or die of its memory: call it in a process that can be killed."""
    from math_verify import parse
    from math_verify import verify as math_verify

    # Its own time limits work by signals that the computations it must stop do not always see: None turns them off.
    spelled = [equality.clean(s).replace("°", r"^{\circ}") for s in (reference, prediction)]
    gold, guess = (parse(rf"\boxed{{{s}}}", parsing_timeout=None) for s in spelled)
    # 12 decimals instead of 6: 0.3333333 is not 1/3. And x >= 2 describes [2, oo) whichever of them is the reference.
    return math_verify(gold, guess, float_rounding=12, allow_set_relation_comp=True, timeout_seconds=None)


def serve(handle: int, limit_s: float) -> None:
    """Answer (prediction, reference) pairs read from the connection with what `verify` says, until it is closed.

    SIGALRM's default action lets the kernel end this process when a pair takes longer than `limit_s`, whatever Python
    or C code it is in, also when the process that asked is gone.
    """
    # Stopping a run signals the whole process group: that must not look like an answer that was too hard.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection = Connection(handle)
    logging.disable()
    verify(r"\sqrt{8}", r"2\sqrt{2}")  # the first call imports and builds the grammar
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    connection.send("ready")
    with contextlib.suppress(EOFError):
        while True:
            pair = connection.recv()
            signal.setitimer(signal.ITIMER_REAL, limit_s)
            verdict = verify(*pair)
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send(verdict)


if __name__ == "__main__":
    serve(int(sys.argv[1]), float(sys.argv[2]))
