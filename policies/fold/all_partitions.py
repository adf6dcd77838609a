"""The logs of all partitions, folded as one: what was merged is merged once more, and compared."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from bandits.errors import CodecError
from bandits.log.codec import digest
from bandits.log.older_decisions import Opened, opened_of
from bandits.log.positions import START, has_reached, log_order
from bandits.log.records import LogEntry, MergeInput, MergeRecord
from policies.fold.checkpoint import FoldState
from policies.fold.partition import PartitionFold, merge_models
from policies.fold.verify import ServedSnapshot, Verified, compare
from policies.items.past import ItemsLog, ItemsPast

REPORTED = 5
"""How many merges that differ are named; the first says it all."""


class PartitionLog(Protocol):
    """One partition's log, all of it."""

    def encoded(self, after: str, through: str | None = None) -> Iterable[LogEntry]:
        """Yield the partition's entries in the order of its log; decisions may be encoded.

        Args:
            after: entries past this position; "0-0" is before the first.
            through: up to this one, included; None for the end of the log.
        """
        ...

    def blob(self, digest: str) -> bytes:
        """Return the blob that an entry names."""
        ...


class PartitionsRoot(NamedTuple):
    """Where the logs of all partitions begin: right behind one merge, which each of them has.

    Attributes:
        states: those of the folds there, in the order of the partitions.
        given: the models that went into the merge; None: that partition had given nothing.
    """

    states: Sequence[FoldState]
    given: Sequence[bytes | None]


class _WholePast:
    """The log behind a fold that relies on no checkpoint but the state at the log's root."""

    aside: str | None = None

    def __init__(self, log: PartitionLog, root: FoldState | None) -> None:
        self.entries = self.behind = self.taught = log.encoded
        self._root = root

    def opened(self, after: str, through: str) -> Iterable[Opened]:
        """Yield of each entry what a join that goes through the log again wants to know.

        Args:
            after: entries past this position.
            through: up to this one, included.
        """
        return opened_of(self.entries(after, through))

    def checkpoint(self, position: str) -> FoldState | None:
        """Return where the log begins, if that is at or before a position."""
        root = self._root
        return root if root is not None and has_reached(position, root.position) else None


class AllPartitionsFold:
    """Folds from the start, or the root, merge by merge, in the order of partition 0's log.

    After each merge every other partition is folded on to the next merge in its own log, so what
    that one was given is at hand. ``differing``: merges whose inputs, or whose result, have other
    digests than the log says.

    Args:
        logs: one of each partition, in their order.
        salt: the secret.
        ends: by partition, where to stop; None for the end of its log.
        items: the log of the policy's items, if it has one.
        root: where the logs begin; None: with their first entries.
    """

    def __init__(
        self,
        logs: Sequence[PartitionLog],
        *,
        salt: bytes,
        ends: Sequence[str | None] | None = None,
        items: ItemsLog | None = None,
        root: PartitionsRoot | None = None,
    ) -> None:
        self._items, catalogues = items, ItemsPast(items)
        states: Sequence[FoldState | None] = [None] * len(logs) if root is None else root.states
        pasts = [_WholePast(log, state) for log, state in zip(logs, states, strict=True)]
        self.folds = [
            PartitionFold(
                log.blob,
                salt=salt,
                partition=number,
                merged=self._model_of,
                past=pasts[number],
                items=catalogues,
            )
            for number, log in enumerate(logs)
        ]
        for fold, state, past in zip(self.folds, states, pasts, strict=True):
            if state is not None:
                fold.resume(state, past)
        self._logs, self._salt, self._root = logs, salt, root

        self._first, *self._others = [
            iter(log.encoded(fold.position, end))
            for log, fold, end in zip(logs, self.folds, ends or [None] * len(logs), strict=True)
        ]
        # By other partition, the merge that it stopped before.
        self._next_merges: list[LogEntry | None] = [None] * len(self._others)

        # The newest merge: what was given to it, its base, its number and model, its model digest.
        self._given: dict[int, tuple[MergeInput, bytes]] = {}
        self._base: bytes | None = None
        self._model: tuple[int, bytes] | None = None
        self._shape = ""
        self.differing: list[Verified] = []
        # The number of a merge, and the states of folds right behind it.
        self._sought = 0
        self._found: dict[int, FoldState] = {}
        if root is not None:
            self._begin(root)

    def _begin(self, root: PartitionsRoot) -> None:
        """Know of the merge at the root what whoever has folded up to it knows."""
        first = self.folds[0]
        if first.spec is None:
            raise CodecError("the root of the logs has no spec", "root")
        self._shape = first.spec.model_digest
        for number, (said, model) in enumerate(zip(first.inputs, root.given, strict=True)):
            if said is not None and model is not None:
                self._given[number] = said, model
        if first.base is not None:
            self._model = first.number, first.base
        first.begin_behind(MergeRecord(first.number, first.inputs, "", self._shape))

    def root_at(self, number: int) -> PartitionsRoot:
        """Fold on to a merge, and return what logs begin with that begin right behind it.

        Raises:
            CodecError: not every log has this merge, or the log says otherwise what was merged.
        """
        self._sought = number
        for record in self.merges():
            if record.number == number:
                break
        states = [self._found.get(partition) for partition in range(len(self.folds))]
        behind = [state for state in states if state is not None]
        if len(behind) < len(states):
            raise CodecError(f"not every log has merge {number}", "merge")
        if self.differing:
            raise CodecError(f"the logs do not give what {self.differing[0].snapshot_id}", "merge")
        given = [self._given.get(partition) for partition in range(len(self.folds))]
        return PartitionsRoot(behind, [None if each is None else each[1] for each in given])

    def merges(self) -> Iterator[MergeRecord]:
        """Yield each merge when partition 0 has adopted it and the others have been folded on."""
        self._fold_on(self.folds[0].number)

        for entry in self._first:
            record = entry.record
            if not isinstance(record, MergeRecord) or not self._counts(record):
                self.folds[0].apply([entry])
                continue

            self._gather(record, entry.id)
            self._apply(0, entry)
            self._fold_on(record.number)
            yield record

        self._fold_on(math.inf)

    def model(self, number: int) -> bytes:
        """Return the model of a merge, folding on to it.

        Raises:
            CodecError: the logs hold no such merge.
        """
        for record in self.merges():
            if record.number == number:
                return self._model_of(record)
        raise CodecError(f"the log of partition 0 holds no merge {number}", "merge")

    def _counts(self, record: MergeRecord) -> bool:
        first = self.folds[0]
        return (
            first.spec is not None
            and record.number > first.number
            and record.model == first.spec.model_digest
        )

    def _gather(self, record: MergeRecord, position: str) -> None:
        """Gather what the partitions gave to a merge, and compare it with what the log says."""
        # Nothing of a model of another shape counts.
        if record.model != self._shape:
            self._shape, self._given, self._base = record.model, {}, None
        if record.restores:
            self._go_back(record)
            return

        if self._model is not None and not self._sums:
            self._base = self._model[1]

        # An input is what the partition gave just now, or what it gave to an earlier merge.
        given: dict[int, tuple[MergeInput, bytes]] = {}
        for number, said in enumerate(record.inputs):
            if said is None:
                continue
            cut, before = self.folds[number].cut, self._given.get(number)
            if cut is not None and cut.position == said.position:
                given[number] = said, cut.model
            elif before is not None and before[0].position == said.position:
                given[number] = before
            else:
                self._differs(
                    record, position, f"partition {number} gave nothing at {said.position}"
                )
                continue

            if given[number][0] != said or digest(given[number][1]) != said.digest:
                self._differs(record, position, f"partition {number}")

        # The sum of ridge models is exact, so what it was made of says all.
        self._given, self._model = given, None
        if not self._sums and digest(self._model_of(record)) != record.digest:
            self._differs(record, position, "the merged model")

    def _go_back(self, record: MergeRecord) -> None:
        """Be as at an earlier merge of these inputs."""
        then = AllPartitionsFold(self._logs, salt=self._salt, items=self._items, root=self._root)
        for earlier in then.merges():
            if (earlier.digest, earlier.inputs) == (record.digest, record.inputs):
                model = then._model_of(earlier)
                self._given, self._base, self._model = then._given, model, (record.number, model)
                return
        raise CodecError(
            f"merge {record.number} goes back to one that the log does not hold", "merge"
        )

    @property
    def _sums(self) -> bool:
        spec = self.folds[0].spec
        return spec is not None and spec.learner.merges == "sums"

    def _model_of(self, record: MergeRecord) -> bytes:
        """Return the model of the merge that the logs have reached."""
        spec = self.folds[0].spec
        if self._model is None and spec is not None:
            given = [self._given[number] for number in sorted(self._given)]
            # Gains that were given to an earlier merge are in the base already.
            if not self._sums:
                given = [pair for pair in given if pair[0].number == record.number]
            self._model = record.number, merge_models(spec, self._salt, self._base, given)

        if self._model is None or self._model[0] != record.number:
            raise CodecError(
                f"merge {record.number} is not where the log of partition 0 has it", "merge"
            )
        return self._model[1]

    def _fold_on(self, number: float) -> None:
        """Fold each other partition up to the first merge that is newer than ``number``."""
        for at, entries in enumerate(self._others):
            entry = self._next_merges[at] or next(entries, None)
            while entry is not None and not (
                isinstance(entry.record, MergeRecord) and entry.record.number > number
            ):
                self._apply(at + 1, entry)
                entry = next(entries, None)
            self._next_merges[at] = entry

    def _apply(self, partition: int, entry: LogEntry) -> None:
        """Apply an entry, and note the state behind a merge that is sought."""
        fold = self.folds[partition]
        fold.apply([entry])
        if isinstance(entry.record, MergeRecord) and fold.number == self._sought > 0:
            self._found.setdefault(partition, fold.state())

    def _differs(self, record: MergeRecord, position: str, what: str) -> None:
        if len(self.differing) < REPORTED:
            name = f"merge {record.number}: {what}"
            self.differing.append(
                Verified(name, position, self.folds[0].learned, "different", math.inf)
            )


def verify_partitions(
    partitions: AllPartitionsFold,
    served: Sequence[ServedSnapshot],
    *,
    build: dict[str, str],
    progress: Callable[[int], None] = lambda _learned: None,
) -> Iterator[Verified]:
    """Compare each of ``served`` when its merge is reached, and yield merges that differ.

    Args:
        partitions: the logs, from their start.
        served: snapshots as they were stored.
        build: this one's.
        progress: is told how many interactions have been learned.
    """
    # What was served before the root is not compared.
    begin = partitions.folds[0].position
    waiting = {
        stored.snapshot.position: stored
        for stored in served
        if begin == START or has_reached(stored.snapshot.position, begin)
    }
    at_root = waiting.pop(begin, None)
    if at_root is not None and begin != START:
        yield compare(partitions.folds[0], at_root, build)

    # A snapshot has the position of its merge in the log of partition 0.
    for _ in partitions.merges():
        first = partitions.folds[0]
        reached = waiting.pop(first.position, None)
        if reached is not None:
            builds = [met for fold in partitions.folds for met in fold.builds]
            yield compare(first, reached, build, folded_by=builds)
        progress(sum(fold.learned for fold in partitions.folds))

    yield from partitions.differing
    for position, each in sorted(waiting.items(), key=lambda pair: log_order(pair[0])):
        yield Verified(
            each.snapshot_id, position, each.snapshot.learned, "not in the log", math.inf
        )
