"""Leakage: a policy that has learned from the rows it is evaluated on looks better than it is."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import mmh3
import msgspec
import numpy as np

from bandits.features.hashing import UInt64
from bandits.log.positions import position_ms
from policies.artifacts.trained_on import LearnedRows, RowOverlap, RowSampler
from simulator.logs.actions.row_hashes import number_or_text, row_hashes
from simulator.logs.rows import LogBatch, LoggedDecision, Piece
from simulator.ope.verdict import Verdict

OTHERS = "evaluate it on rows that came later, or were held back"
UNKNOWN = (
    "nothing says which rows it learned from, as an earlier build wrote it: if they are among"
    " these, its values are too high; train it again, or make sure that these rows are others"
)
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why no estimate of a policy is better than ``verdict``.

    Such a policy is never called the winner.
    """

    verdict: Verdict
    reason: str


class Provenance(Protocol):
    """The rows that a policy learned from, as far as they are known."""

    def count(self, seen: RowOverlap, piece: Piece, batch: LogBatch) -> None:
        """Count the rows of a batch that are among them.

        Args:
            seen: what to add to.
            piece: what the batch is of.
            batch: of the log.
        """
        ...

    def doubt(self, seen: RowOverlap, rows: int) -> Doubt | None:
        """Return what that means for estimates.

        Args:
            seen: what was counted.
            rows: how many the estimates are of.
        """
        ...


@dataclass(frozen=True, slots=True)
class UnknownRows:
    """The rows of a model that does not say them; ``reason`` is what that means."""

    reason: str = UNKNOWN

    def count(self, seen: RowOverlap, piece: Piece, batch: LogBatch) -> None:
        """Count nothing: nothing is known.

        Args:
            seen: left as it is.
            piece: not looked at.
            batch: not looked at.
        """

    def doubt(self, seen: RowOverlap, rows: int) -> Doubt | None:  # noqa: ARG002 - see Provenance
        """Return that nobody knows, whatever was counted.

        Args:
            seen: not looked at.
            rows: not looked at.
        """
        return Doubt("weak", self.reason)


@dataclass(frozen=True, slots=True)
class TrainedRows:
    """The rows of a model that was trained on a log."""

    learned: LearnedRows

    def count(self, seen: RowOverlap, piece: Piece, batch: LogBatch) -> None:
        """Count rows by the hashes of what they say.

        Args:
            seen: what to add to.
            piece: what the batch is of; its file's name is no part of a row's place.
            batch: of the log; one of numbers only, without decisions, counts for nothing.
        """
        if len(batch.decisions) == len(batch):
            seen.count(self.learned, *hashes_of(piece, batch))

    def doubt(self, seen: RowOverlap, rows: int) -> Doubt | None:
        """Return a doubt if more rows are among them than chance explains, else None.

        Args:
            seen: what was counted.
            rows: how many the estimates are of, as the doubt's sentence says.
        """
        share = seen.share(self.learned)
        if not share:
            return None
        return Doubt(
            "unreliable",
            f"it learned from {share:.0%} of these {rows:,} rows (it was trained on"
            f" {self.learned.logs}), so its values are too high; {OTHERS}",
        )


@dataclass(frozen=True, slots=True)
class ServiceLog:
    """The rows of a snapshot that a service made: decisions of ``policy`` up to ``position``."""

    policy: str
    position: str

    def count(self, seen: RowOverlap, piece: Piece, batch: LogBatch) -> None:
        """Count rows by their time, in a log of the same policy.

        Args:
            seen: what to add to: ``placed``, and ``placed_again`` for rows of that time.
            piece: what the batch is of; rows of no archive count for nothing.
            batch: of the log, with times.
        """
        archive = getattr(_within(piece), "policy", None)
        if archive is None:
            return
        through = position_ms(self.position)
        mine = str(archive).partition("/")[0] == self.policy
        seen.placed += len(batch)
        seen.placed_again += int((batch.times_ms <= through).sum()) if mine else 0

    def doubt(self, seen: RowOverlap, rows: int) -> Doubt | None:
        """Return a doubt if any rows are of that time, else None.

        Args:
            seen: what was counted.
            rows: how many the estimates are of, as the doubt's sentence says.
        """
        if not seen.placed_again:
            return None
        return Doubt(
            "unreliable",
            f"it learned from what {self.policy!r} logged up to {self.position}, and"
            f" {seen.placed_again:,} of these {rows:,} rows are of that time, so its values are"
            f" too high; {OTHERS}",
        )


def provenance_of(policy: Any) -> Provenance | None:
    """Return what is known of a policy's rows; None for one that has learned from none."""
    provenance: Provenance | None = getattr(policy, "provenance", None)
    return provenance


def count_seen(
    seen: Mapping[str, RowOverlap], targets: Iterable[Any], piece: Piece, batch: LogBatch
) -> None:
    """Count the rows of a batch that each policy has learned from.

    Args:
        seen: by policy, what to add to.
        targets: the policies.
        piece: what the batch is of.
        batch: of the log.
    """
    for target in targets:
        provenance = provenance_of(target)
        if provenance is not None:
            provenance.count(seen[target.name], piece, batch)


def doubts_of(
    targets: Iterable[Any], seen: Mapping[str, RowOverlap], rows: int
) -> dict[str, Doubt]:
    """Return, by policy, why its estimates cannot be taken as they are.

    Args:
        targets: the policies; those that learned from other rows are not in the answer.
        seen: by policy, what was counted.
        rows: how many the estimates are of.
    """
    doubts = {}
    for target in targets:
        provenance = provenance_of(target)
        doubt = None if provenance is None else provenance.doubt(seen[target.name], rows)
        if doubt is not None:
            doubts[target.name] = doubt
    return doubts


def learn_from(sampler: RowSampler, piece: Piece, batch: LogBatch) -> None:
    """Note that a model learns from a batch.

    Args:
        sampler: what keeps the rows of the model.
        piece: what the batch is of.
        batch: of the log.
    """
    sampler.add(_name(piece), *hashes_of(piece, batch), batch.times_ms)


def hashes_of(piece: Piece, batch: LogBatch) -> tuple[UInt64, UInt64]:
    """Hash each row, so that it is known again.

    A place is one in the file, whatever the file is called. The reward is left out: it may be
    corrected.

    Args:
        piece: what the batch is of.
        batch: n rows.

    Returns:
        uint64[n] of each row's id or place with what it says, and uint64[n] of what it says.
    """
    file = _file(piece)
    if batch.records is not None and not file:
        return row_hashes(batch.records, batch.propensity, batch.times_ms)

    placed, said = [], []
    for row in batch.decisions:
        content = _encode(_content(row))
        said.append(_hash(content))

        # An event id may begin with the file's name, which a copy of the file does not have.
        place = f"{row.event_id.removeprefix(file)}\0{row.slot}\0"
        placed.append(_hash(place.encode(errors="surrogatepass") + content))
    return np.array(placed, np.uint64), np.array(said, np.uint64)


def _content(row: LoggedDecision) -> Any:
    """Return what a row says, but for its reward."""
    context = {name: number_or_text(value) for name, value in row.context.items()}
    return (
        context,
        row.action_ids[row.chosen],
        len(row.action_ids),
        row.propensity,
        row.slot,
        row.time_ms,
    )


def _hash(data: bytes) -> int:
    return mmh3.hash64(data, signed=False)[0]


def _within(piece: Any) -> Any:
    """Return the piece inside all that are wrapped around it."""
    while hasattr(piece, "piece"):
        piece = piece.piece
    return piece


def _file(piece: Piece) -> str:
    """Return the name of the file that a piece is of; empty if it is of none."""
    return str(getattr(getattr(_within(piece), "span", None), "name", ""))


def _name(piece: Piece) -> str:
    """Return the file, or the policy and where its archive's piece begins and ends."""
    inner = _within(piece)
    if hasattr(inner, "after"):
        return f"the archive of {inner.policy}, {inner.after} to {inner.through or 'its end'}"
    if hasattr(inner, "policy"):
        return f"the archive of {inner.policy}"
    return _file(piece) or "a log in memory"
