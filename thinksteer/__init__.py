"""Reproductions of papers about steering how long language models think."""

import os
import sys

# Threads that wait for each other sleep. By default they spin, and every operation takes ten times as long as soon as
# another process takes one of the cores. OpenMP reads this when PyTorch is imported.
if "torch" not in sys.modules:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
