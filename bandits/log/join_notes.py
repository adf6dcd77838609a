"""Notes about decisions that a fold which begins at a later entry could not know."""

from collections import deque
from collections.abc import Callable

from bandits.log.join_state import Attached, JoinState, Reset
from bandits.log.positions import START, is_after, log_order
from bandits.log.records import RewardRecord

KEPT = 1024
"""Notes are looked through for what is over once there are so many, or twice as many as then."""


class JoinNotes:
    """Notes on the decisions that are remembered, in the order of the log.

    Args:
        oldest: returns the position of the oldest of them; None if there is none.
        fold: the version that is in force before the first entry.
    """

    def __init__(self, oldest: Callable[[], str | None], fold: int) -> None:
        self._oldest = oldest
        self._skipped: deque[str] = deque()
        self._attached: deque[Attached] = deque()
        self._resets: deque[Reset] = deque()
        # The version that is in force, by the entry from which on it is.
        self._versions = deque([(START, fold)])
        self._limit = KEPT

    def asks(self, oldest: Callable[[], str | None]) -> None:
        """Ask someone else for the oldest decision that is remembered."""
        self._oldest = oldest

    def skip(self, position: str) -> None:
        """Note that the decision there opened no window."""
        self._skipped.append(position)
        if len(self._skipped) >= self._limit:
            self._forget(self._oldest())
            self._limit = max(KEPT, 2 * len(self._skipped))

    def attach(self, position: str, rewards: list[RewardRecord], *, activated: bool) -> None:
        """Note what came before the decision there.

        Args:
            position: the decision's.
            rewards: that waited for it.
            activated: whether an activation did.
        """
        self._attached.append(Attached(position, activated, rewards))

    def reset(self, made: Reset) -> None:
        """Note that the model was replaced."""
        self._forget(self._oldest())
        self._resets.append(made)

    def version(self, position: str, fold: int) -> None:
        """Note which version is in force after an entry."""
        self._versions.append((position, fold))

    def restore(self, state: JoinState) -> None:
        """Take up the notes of a checkpoint."""
        self._skipped = deque(state.skipped)
        self._attached = deque(state.attached)
        self._resets = deque(state.resets)
        self._versions = deque([(START, state.fold)])

    def of(
        self, oldest: str | None, fold: int
    ) -> tuple[int, list[str], list[Attached], list[Reset]]:
        """Return the notes on what is remembered: a version, what was skipped, attached and reset.

        Args:
            oldest: from which position on there are decisions that are remembered.
            fold: the version in force now.
        """
        self._forget(oldest)
        if oldest is None:
            return fold, [], [], []

        resets = []
        for made in self._resets:
            taught = {
                position: dict(sorted(slots.items()))
                for position, slots in made.taught.items()
                if not is_after(oldest, position)
            }
            resets.append(Reset(made.position, made.through, taught))
        return self._versions[0][1], list(self._skipped), list(self._attached), resets

    def _forget(self, oldest: str | None) -> None:
        """Drop notes on what is no longer remembered."""
        if oldest is None:
            self._skipped.clear()
            self._attached.clear()
            self._resets.clear()
            while len(self._versions) > 1:
                self._versions.popleft()
            return

        first = log_order(oldest)
        while self._skipped and log_order(self._skipped[0]) < first:
            self._skipped.popleft()
        while self._attached and log_order(self._attached[0].position) < first:
            self._attached.popleft()
        while self._resets and log_order(self._resets[0].position) < first:
            self._resets.popleft()
        while len(self._versions) > 1 and log_order(self._versions[1][0]) < first:
            self._versions.popleft()
