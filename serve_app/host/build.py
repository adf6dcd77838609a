"""Which build this is: the versions that a log records."""

import platform
from functools import cache
from importlib.metadata import version

from bandits.log.versions import FOLD


@cache
def this_build() -> dict[str, str]:
    """Return the versions within which a replay gives the same bytes."""
    names = ("banditloop", "numba", "numpy", "vowpal-wabbit-next")
    return {
        "fold": str(FOLD),
        "machine": platform.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }
