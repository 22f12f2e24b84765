"""Steering how long language models think: what the stages and scripts are made of."""

import os
import sys

# Here, before any other module, since an older Python fails at some import with a message that does not say why. The
# stages and this file have to parse on it.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.stderr.write(
        f"error: this is Python {sys.version_info[0]}.{sys.version_info[1]}, and thinksteer needs 3.11 or newer: "
        "source scripts/set_up.sh requirements-common.txt\n"
    )
    sys.exit(2)

# Threads that wait for each other sleep. By default they spin, and every operation takes ten times as long as soon as
# another process takes one of the cores. OpenMP reads this when PyTorch is imported.
if "torch" not in sys.modules:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
