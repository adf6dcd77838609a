"""Which events train the sources, and which they are judged by."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bandits.errors import DataSetError
from policies.data.coded import UNTIMED, CodedEvents

SplitName = Literal["global-time", "user-time", "last-one"]
SPLITS: Final[tuple[SplitName, ...]] = get_args(SplitName)
TEST_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Two parts of the events: bool[n] ``train`` and ``test``.

    ``cut_ms``: the first time of the test part, if one time divides all events. ``notes``: what a
    reader of figures should know.
    """

    name: SplitName
    train: NDArray[np.bool_]
    test: NDArray[np.bool_]
    cut_ms: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The split in words."""
        return {
            "global-time": "the last events of all, by time, test; those before them train",
            "user-time": "the last events of each user, by time, test; those before them train",
            "last-one": "the last event of each user tests; those before it train",
        }[self.name]


def check_split_name(name: str) -> SplitName:
    """Return the name of a split.

    Raises:
        DataSetError: there is no such split.
    """
    for known in SPLITS:
        if name == known:
            return known
    raise DataSetError(f"--split is {', '.join(SPLITS)}, not {name!r}", "split")


def split_events(events: CodedEvents, name: SplitName, share: float = TEST_SHARE) -> Split:
    """Split events in two.

    ``global-time``: the last ``share`` of all events test, as of the moment at which they begin, so
    that nothing is learned from what came later. ``user-time``: the last ``share`` of each user's
    events, rounded up, at least one stays. ``last-one``: the last event of each user with two or
    more. The two latter let sources learn from what others did later.

    Args:
        events: those of one user stand together, in time order.
        name: the kind of split.
        share: of the events that test; of no account for ``last-one``.

    Raises:
        DataSetError: the events do not allow it; it says which split they do allow.
    """
    if name == "global-time":
        return _by_global_time(events, share)

    notes = []
    if np.any(events.time == UNTIMED):
        notes.append(
            f"{int(np.sum(events.time == UNTIMED)):,} events have no time: the order of their rows"
            " stands for it"
        )
    starts = events.starts
    counts = np.diff(starts)
    tested = np.minimum(counts > 1, counts) if name == "last-one" else counts * share
    tested = np.minimum(np.ceil(tested).astype(np.int64), np.maximum(counts - 1, 0))
    place = np.arange(len(events)) - np.repeat(starts[:-1], counts)
    test = place >= np.repeat(counts - tested, counts)
    if not test.any():
        raise DataSetError(
            f"--split {name} needs a user with two events: each of the {len(counts):,} has one;"
            " global-time can test new users",
            "split",
        )
    return Split(name, ~test, test, notes=tuple(notes))


def _by_global_time(events: CodedEvents, share: float) -> Split:
    timed = np.sort(events.time[events.time != UNTIMED])
    if timed.size == 0:
        raise DataSetError(
            f"the {len(events):,} events have no times, so global-time cannot split them: --split"
            " user-time and last-one take each user's rows in their order",
            "split",
        )
    if timed[0] == timed[-1]:
        raise DataSetError(
            f"all {timed.size:,} events have one and the same time, so global-time cannot split"
            " them: --split user-time and last-one take each user's rows in their order",
            "split",
        )

    # Events of one moment stay together: the cut moves on to the first moment that leaves
    # something to train on.
    cut = timed[min(timed.size - 1, int(np.ceil(timed.size * (1 - share))))]
    if cut == timed[0]:
        cut = timed[np.searchsorted(timed, cut, "right")]
    test = events.time >= cut

    notes = []
    if untimed := int(np.sum(events.time == UNTIMED)):
        notes.append(f"{untimed:,} events have no time: they train")
    return Split("global-time", ~test, test, int(cut), tuple(notes))
