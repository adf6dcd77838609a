"""Data sets, worlds, the in-process loop, audits: everything offline.

Exported here: ``run_loop``, the whole loop in one process, and ``SyntheticWorld``, a world to run
it in. A name's module is imported when the name is first used.
"""

from typing import TYPE_CHECKING

from bandits.lazy import lazy_names

if TYPE_CHECKING:
    from simulator.worlds.loop import run_loop
    from simulator.worlds.synthetic import SyntheticWorld
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "simulator.worlds.loop": ["run_loop"],
            "simulator.worlds.synthetic": ["SyntheticWorld"],
        },
    )

__all__ = [
    "SyntheticWorld",
    "run_loop",
]
