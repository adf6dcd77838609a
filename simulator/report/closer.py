"""A closer look at some of a log's decisions: what sources are worth, and what has drifted.

A report of ten million decisions looks closely at the first and the newest of them only: candidates
and contexts are most of what there is to read.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bandits.log.positions import START, has_reached, log_order
from bandits.types import Float64
from policies.archive.archive import ArchiveReader, archive_folders
from simulator.logs.archive.pieces import ArchivePiece, archive_pieces
from simulator.logs.rows import LogBatch
from simulator.report.beside.apprentice import apprentice_worth
from simulator.report.exploration import exploration_price
from simulator.report.gather import Root
from simulator.report.report import ApprenticeWorth, Coverage, Drift, ExplorationPrice, SourceWorth

LOOKED_AT = 50_000
"""Entries of each end of the log, of all partitions, that are looked at closely."""
BINS = 10
"""Bins of a number, each with as many values of both ends together."""


class CloserLook(NamedTuple):
    """What was found. ``rows``: the newest slots that were looked at."""

    rows: int
    coverage: Coverage
    sources: list[SourceWorth]
    drifts: list[Drift]
    exploration: ExplorationPrice
    apprentice: ApprenticeWorth | None = None


def look_closely(
    root: Root,
    policy: str,
    after: str = START,
) -> CloserLook | None:
    """Look at the first and the newest decisions of a range; None if there are none.

    Args:
        root: the archive's folder or URI, or a file system.
        policy: its name.
        after: only what comes past this position.
    """
    folders = archive_folders(root, policy)
    ends = [_ends(root, folder, after, LOOKED_AT // len(folders)) for folder in folders]
    first = _read(end.first for end in ends)
    newest = _read(end.newest for end in ends)
    if not any(map(len, newest)):
        return None
    if any(end.overlap for end in ends):
        first, newest = _halves(newest)

    return CloserLook(
        sum(map(len, newest)),
        coverage_of(newest),
        source_worths(newest),
        drifts_between(first, newest),
        exploration_price([end.newest for end in ends]),
        apprentice_worth([end.newest for end in ends if end.beside]),
    )


class _Ends(NamedTuple):
    first: ArchivePiece
    newest: ArchivePiece
    overlap: bool
    beside: bool


def _ends(root: Root, folder: str, after: str, count: int) -> _Ends:
    """Return the first and the newest entries of a partition, so many of each."""
    reader, seen, through = ArchiveReader(root, folder), 0, after
    for group in reader.columns(["id"], after):
        seen, through = seen + len(group.batch), group.last
        if seen >= count:
            break
    begins = max(newest_after(reader, count), after, key=log_order)

    (first,) = archive_pieces(root, folder, 1, skip_bad=True, after=after)
    (newest,) = archive_pieces(root, folder, 1, skip_bad=True, after=begins)
    first.through = through
    return _Ends(first, newest, not has_reached(begins, through), _are_beside(reader, begins))


def _are_beside(reader: ArchiveReader, after: str) -> bool:
    """Return whether any of the newest decisions was made beside an apprentice."""
    parts = (group.batch["apprentice"] for group in reader.columns(["apprentice"], after))
    return any(part.null_count < len(part) for part in parts)


def newest_after(reader: ArchiveReader, count: int) -> str:
    """Return the position behind which the newest entries of an archive are.

    Args:
        reader: of a partition.
        count: how many entries are wanted; there may be fewer.
    """
    found, begins = 0, START
    for stored in reversed(reader.ranges()):
        found, begins = found + stored.range.count, stored.range.previous
        if found >= count:
            break
    ids = [
        each for group in reader.columns(["id"], begins) for each in group.batch["id"].to_pylist()
    ]
    return ids[-count - 1] if len(ids) > count else begins


def _read(pieces: Iterable[ArchivePiece]) -> list[LogBatch]:
    return [batch for piece in pieces for batch in piece.batches() if len(batch)]


def _halves(batches: Sequence[LogBatch]) -> tuple[list[LogBatch], list[LogBatch]]:
    """Return the first half of the rows, in the order of time, and the rest."""
    middle = int(np.median(np.concatenate([batch.times_ms for batch in batches])))
    first = [batch.take(batch.times_ms < middle) for batch in batches]
    rest = [batch.take(batch.times_ms >= middle) for batch in batches]
    return [each for each in first if len(each)], [each for each in rest if len(each)]


def coverage_of(batches: Iterable[LogBatch]) -> Coverage:
    """Return how many of the items that there were to choose among were chosen.

    Args:
        batches: rows with their actions as columns.
    """
    candidates, chosen = set[str](), set[str]()
    for batch in batches:
        actions = batch.actions
        assert actions is not None  # noqa: S101 - an archive's
        codes, names = actions.chosen_ids
        candidates.update(actions.names[code] for code in np.unique(actions.ids).tolist())
        chosen.update(names[code] for code in np.unique(codes).tolist())
    return Coverage(len(candidates), len(chosen))


def source_worths(batches: Iterable[LogBatch]) -> list[SourceWorth]:
    """Return what each source of some rows is worth, by name.

    Args:
        batches: rows with their actions as columns.
    """
    rows, earned_in_all = 0, 0.0
    sums: dict[str, Float64] = {}
    for batch in batches:
        actions = batch.actions
        assert actions is not None  # noqa: S101 - an archive's
        rows, earned_in_all = rows + len(batch), earned_in_all + float(batch.reward.sum())
        proposed = {name: ~np.isnan(scores.values) for name, scores in actions.scores.items()}
        if not proposed:
            continue
        by_how_many = np.sum([each[actions.chosen_at] for each in proposed.values()], axis=0)
        for name, mine in proposed.items():
            counts = np.add.reduceat(mine, actions.offsets[:-1], dtype=np.int64)
            chosen = mine[actions.chosen_at]
            added = [
                (counts > 0).sum(),
                counts.sum(),
                chosen.sum(),
                (chosen & (by_how_many == 1)).sum(),
                batch.reward[chosen].sum(),
            ]
            sums[name] = sums.get(name, np.zeros(len(added))) + np.array(added)

    out = []
    for name in sorted(sums):
        asked, candidates, chosen, alone, earned = sums[name].tolist()
        out.append(
            SourceWorth(
                name,
                asked / rows,
                candidates / asked if asked else 0.0,
                chosen / rows,
                alone / rows,
                earned / chosen if chosen else np.nan,
                (earned_in_all - earned) / (rows - chosen) if rows > chosen else np.nan,
            )
        )
    return out


def drifts_between(first: Sequence[LogBatch], newest: Sequence[LogBatch]) -> list[Drift]:
    """Return how far features of the context, what is to be chosen among, and rewards have changed.

    Args:
        first: rows with their actions as columns.
        newest: later ones.
    """
    if not first or not newest:
        return []
    before, after = _Seen(first), _Seen(newest)
    names = sorted((before.texts.keys() | after.texts.keys()) - before.numbers.keys())
    found = [
        Drift("context", name, *distance_of(before.texts.get(name, {}), after.texts.get(name, {})))
        for name in names
    ]
    for name in sorted(before.numbers.keys() & after.numbers.keys()):
        old, new = (np.concatenate(each.numbers[name]) for each in (before, after))
        found.append(Drift("context", name, *distance_of_numbers(old, new)))
    earned = (np.concatenate([batch.reward for batch in each]) for each in (first, newest))
    return [
        *found,
        Drift("candidates", "", *distance_of(before.items, after.items)),
        Drift("reward", "", *distance_of_numbers(*earned)),
    ]


def distance_of_numbers(old: Float64, new: Float64) -> tuple[float, float]:
    """Return the distance of two samples of numbers, and what chance alone would make of it.

    Args:
        old: float64[m].
        new: float64[n], later.
    """
    # The largest number has a bin of its own, so that of two numbers each has one.
    edges = np.unique(np.quantile(np.concatenate([old, new]), np.linspace(0, 1, BINS + 1)))
    binned = (
        dict(enumerate(np.bincount(np.searchsorted(edges[1:], each, "right")).tolist()))
        for each in (old, new)
    )
    return distance_of(*binned)


class _Seen:
    """How often rows have each text of each feature, their numbers, and their candidates."""

    def __init__(self, batches: Iterable[LogBatch]) -> None:
        self.texts: dict[str, Counter[str]] = {}
        self.numbers: dict[str, list[Float64]] = {}
        self.items: Counter[str] = Counter()
        for batch in batches:
            actions = batch.actions
            assert actions is not None  # noqa: S101 - an archive's
            codes, names = actions.ids, actions.names
            for place, count in enumerate(np.bincount(codes, minlength=len(names)).tolist()):
                if count:
                    self.items[names[place]] += count

            context = actions.context
            if context is None:
                continue
            for code, term in enumerate(context.terms):
                mine = context.codes == code
                if term.kind == "number":
                    self.numbers.setdefault(term.name, []).append(context.values[mine])
                    continue
                values = self.texts.setdefault(term.name, Counter())
                if term.kind == "flag":
                    yes = int(context.values[mine].sum())
                    values.update({"true": yes, "false": int(mine.sum()) - yes})
                else:
                    values[f"={term.text}"] += int(mine.sum())


def distance_of(old: Mapping[Any, int], new: Mapping[Any, int]) -> tuple[float, float]:
    """Return the distance of two distributions, and what chance alone would make of it.

    Args:
        old: how often each value came.
        new: the same, later.
    """
    keys = [*{**old, **new}]
    counts = np.array([[each.get(key, 0) for key in keys] for each in (old, new)], np.float64)
    sizes = counts.sum(axis=1)
    if not sizes.all():
        return 0.0, 0.0
    shares = counts / sizes[:, None]
    distance = 0.5 * float(np.abs(shares[0] - shares[1]).sum())

    # The mean of a normal deviation's size.
    pooled = counts.sum(axis=0) / sizes.sum()
    deviations = np.sqrt(pooled * (1.0 - pooled) * (1.0 / sizes).sum())
    return distance, 0.5 * float(np.sqrt(2.0 / np.pi) * deviations.sum())
