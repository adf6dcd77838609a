"""What a user was shown, as a part of a profile stores it: only what is asked of it is made."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate, count, repeat
from operator import neg, sub
from typing import Any, NamedTuple

from bandits.errors import CodecError


class Showing(NamedTuple):
    """A decision chose an item for a user; they sort from old to new.

    ``entry_ms``, ``seq``: the decision's entry.
    """

    entry_ms: int
    seq: int
    item: str


# What ``_make`` does, in a third of the time.
showing_of: Callable[[Iterable[Any]], Showing] = partial(tuple.__new__, Showing)


class Showings(Sequence[Showing]):
    """Showings in columns, newest first.

    Whoever ranks reads those of every user who asks, and wants to know of them only which items
    were shown too often. That is found out by the items' numbers, before any of them has a name.
    """

    def __init__(
        self,
        steps: list[int],
        seqs: list[int],
        numbers: list[int],
        items: list[str],
        *,
        first: int,
        prefix: str,
    ) -> None:
        """Take the columns.

        Args:
            steps: milliseconds of the newest entry, and then how much older each is than the one
                before.
            seqs: the other number of each entry's id; none: all are 0.
            numbers: of each its item's place and 1; 0: the next of the items that are new here;
                none: each item is new. There is none below 0.
            items: those of the part, without what all begin with.
            first: the place of the first one that is new here.
            prefix: what all items begin with.

        Raises:
            CodecError: the columns are not of one length, or name items that there are not.
        """
        length = len(steps)
        if (
            (seqs and len(seqs) != length)
            or (numbers and (len(numbers) != length or max(numbers) > len(items)))
            or first + (numbers.count(0) if numbers else length) > len(items)
        ):
            raise CodecError("this is no part of a profile: items are missing", "profile")
        self._steps, self._seqs, self._numbers = steps, seqs, numbers
        self._items, self._first, self._prefix = items, first, prefix

    def __len__(self) -> int:
        """How many there are."""
        return len(self._steps)

    def __iter__(self) -> Iterator[Showing]:
        """Make each."""
        times, seqs = accumulate(self._steps, sub), self._seqs or repeat(0)
        return map(showing_of, zip(times, seqs, self._names(), strict=False))

    def __getitem__(self, at: Any) -> Any:
        """Make those at a place."""
        return tuple(self)[at]

    def __eq__(self, other: object) -> bool:
        """Whether the same was shown."""
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        """As that of a tuple of them."""
        return hash(tuple(self))

    def _names(self) -> list[str]:
        if not self._numbers:
            return self._named(range(self._first, self._first + len(self._steps)))
        fresh = count(self._first)
        return self._named(number - 1 if number else next(fresh) for number in self._numbers)

    def _named(self, places: Iterable[int]) -> list[str]:
        items, prefix = self._items, self._prefix
        return [prefix + items[place] for place in places]

    def often(self, times: int, since_ms: int) -> list[str]:
        """Return the items that were shown at least so often, each once.

        Args:
            times: how often.
            since_ms: counted from this time of the log's clock on.
        """
        recent, first = self._count_since(since_ms), self._first
        if recent < times:
            return []
        if not self._numbers:
            return self._named(range(first, first + recent)) if times == 1 else []

        # An item that is new here was shown once more than its number says.
        numbers = self._numbers if recent == len(self._numbers) else self._numbers[:recent]
        fresh = numbers.count(0)
        if recent - fresh < times - 1:
            return []
        again, end = Counter(numbers), first + fresh
        del again[0]
        found = [
            number - 1
            for number, shown in again.items()
            if shown + (first < number <= end) >= times
        ]
        if times == 1:
            found += [at for at in range(first, end) if at + 1 not in again]
        return self._named(found)

    def _count_since(self, since_ms: int) -> int:
        """Return how many there are from a time on."""
        steps = self._steps
        if not steps or 2 * steps[0] - sum(steps) >= since_ms:  # also the oldest is
            return len(steps)
        return bisect_right(list(accumulate(steps, sub)), -since_ms, key=neg)
