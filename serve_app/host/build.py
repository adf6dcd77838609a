"""Which build this is: the versions that a log is told."""

import platform
from functools import cache
from importlib.metadata import version

from bandits.log.versions import FOLD


@cache
def this_build() -> dict[str, str]:
    """Version of the fold, architecture and library versions, within which a replay is byte-identical."""
    names = ("banditloop", "numba", "numpy", "vowpal-wabbit-next")
    return {
        "fold": str(FOLD),
        "machine": platform.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }
