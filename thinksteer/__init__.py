"""Steering how long language models think: what the stages and scripts are made of."""

import sys

# Here, before any other module, since an older Python fails at some import with a message that does not say why. The
# stages and this file have to parse on it.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.stderr.write(
        f"error: this is Python {sys.version_info[0]}.{sys.version_info[1]}, and thinksteer needs 3.11 or newer: "
        "source scripts/set_up.sh requirements-common.txt\n"
    )
    sys.exit(2)
