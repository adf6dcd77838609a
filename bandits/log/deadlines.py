"""The deadlines of a join: its next steps as the log's time goes on."""

from collections import deque
from collections.abc import Iterator

Deadline = tuple[int, int, str, str]
"""When, its number, what, and of which event."""

NEVER = 1 << 65
"""Later than any time of a log."""


class Deadlines:
    """The steps that fall due, in order of (time, number).

    Deadlines of one kind and window fall due in the order they are added, as the log's time goes
    forward. So each kind and window has a queue, and the next deadline is the head of one of a few.
    (A heap of all took a tenth of a fold's time.)
    """

    def __init__(self) -> None:
        self._queues: dict[tuple[str, float], deque[Deadline]] = {}
        # No deadline is before this.
        self._none_before = NEVER

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def add(self, deadline: Deadline, window_s: float) -> None:
        """Add a deadline, which is later than all of its kind and window.

        Args:
            deadline: when, its number, what, and of which event.
            window_s: the window that it ends.
        """
        at = (deadline[2], window_s)
        queue = self._queues.get(at)
        if queue is None:
            queue = self._queues[at] = deque()
        queue.append(deadline)
        if deadline[0] < self._none_before:  # noqa: PLR1730 - a call of min takes longer
            self._none_before = deadline[0]

    def restore(self, deadlines: list[Deadline]) -> None:
        """Add those of a checkpoint, which come in any order."""
        self._queues["restored", 0.0] = deque(sorted(deadlines))
        self._none_before = self.next_ms()

    def queue_of(self, kind: str, window_s: float) -> deque[Deadline]:
        """Return the queue of a kind and window, of which the first may be removed."""
        return self._queues[kind, window_s]

    def alone(self, kind: str) -> deque[Deadline] | None:
        """Return the queue of a kind, if deadlines of one window alone are in it; else None."""
        found = [queue for (each, _), queue in self._queues.items() if each == kind and queue]
        return found[0] if len(found) == 1 else None

    def first_of(self, kind: str) -> Iterator[str]:
        """Yield the event of the first deadline of a kind, for each window."""
        for (each, _), queue in self._queues.items():
            if each == kind and queue:
                yield queue[0][3]

    def of_window(self, window_s: float) -> tuple[deque[Deadline], deque[Deadline], int]:
        """Return the queues of a window, and when the next of all other deadlines is due.

        Whoever changes the queues says so by ``look_again``.

        Args:
            window_s: the window.

        Returns:
            The windows to close, the decisions to forget, and a time.
        """
        closes = self._queues.setdefault(("close", window_s), deque())
        forgets = self._queues.setdefault(("forget", window_s), deque())
        others = [
            queue[0][0]
            for queue in self._queues.values()
            if queue and queue is not closes and queue is not forgets
        ]
        return closes, forgets, min(others, default=NEVER)

    def look_again(self) -> None:
        """Note that queues were changed."""
        self._none_before = self.next_ms()

    def next_ms(self) -> int:
        """Return when the next deadline is due."""
        return min((queue[0][0] for queue in self._queues.values() if queue), default=NEVER)

    def pop_due(self, now_ms: int) -> Deadline | None:
        """Remove and return the next deadline, if it is due."""
        if now_ms < self._none_before:
            return None

        first: deque[Deadline] | None = None
        for queue in self._queues.values():
            if queue and (first is None or queue[0] < first[0]):
                first = queue
        if first is None or first[0][0] > now_ms:
            self._none_before = NEVER if first is None else first[0][0]
            return None
        return first.popleft()
