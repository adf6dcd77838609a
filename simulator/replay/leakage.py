"""Has a policy learned from the rows that it is evaluated on? Then its value there says nothing of any others."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import mmh3
import msgspec
import numpy as np

from bandits.features.hashing import UInt64
from bandits.log.positions import position_ms
from policies.artifacts.trained_on import LearnedRows, RowOverlap, RowSampler
from simulator.logs.rows import LogBatch, LoggedDecision, Piece
from simulator.ope.verdict import Verdict

OTHERS = "evaluate it on rows that came later, or were held back"
UNKNOWN = (
    "nothing says which rows it learned from, as an earlier build wrote it: if they are among"
    " these, its values"
    " are too high; train it again, or make sure that these rows are others"
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
    """What is known of the rows that a policy learned from."""

    def count(self, seen: RowOverlap, piece: Piece, batch: LogBatch) -> None:
        """Add how many rows of a batch are among them. ``piece``: what the batch is of."""
        ...

    def doubt(self, seen: RowOverlap, rows: int) -> Doubt | None:
        """What that means for estimates on ``rows`` rows."""
        ...


@dataclass(frozen=True, slots=True)
class UnknownRows:
    """Of a model that does not say. ``reason``: what that means."""

    reason: str = UNKNOWN

    def count(self, seen: RowOverlap, piece: Piece, batch: LogBatch) -> None:
        """Nothing can be counted."""

    def doubt(self, seen: RowOverlap, rows: int) -> Doubt | None:  # noqa: ARG002 - see Provenance
        """See Provenance."""
        return Doubt("weak", self.reason)


@dataclass(frozen=True, slots=True)
class TrainedRows:
    """Of a model that was trained on a log."""

    learned: LearnedRows

    def count(self, seen: RowOverlap, piece: Piece, batch: LogBatch) -> None:
        """See Provenance."""
        if len(batch.decisions) == len(batch):
            seen.count(self.learned, *hashes_of(piece, batch))

    def doubt(self, seen: RowOverlap, rows: int) -> Doubt | None:
        """See Provenance."""
        share = seen.share(self.learned)
        if not share:
            return None
        return Doubt(
            "unreliable",
            f"it learned from {share:.0%} of these {rows:,} rows (it was trained on"
            f" {self.learned.logs}), so its values"
            f" are too high; {OTHERS}",
        )


@dataclass(frozen=True, slots=True)
class ServiceLog:
    """Of a snapshot that a service made of its own log: all decisions of ``policy`` up to ``position``."""

    policy: str
    position: str

    def count(self, seen: RowOverlap, piece: Piece, batch: LogBatch) -> None:
        """See Provenance."""
        archive = getattr(_within(piece), "policy", None)
        if archive is None:
            return
        through = position_ms(self.position)
        mine = str(archive).partition("/")[0] == self.policy
        seen.placed += len(batch)
        seen.placed_again += int((batch.times_ms <= through).sum()) if mine else 0

    def doubt(self, seen: RowOverlap, rows: int) -> Doubt | None:
        """See Provenance."""
        if not seen.placed_again:
            return None
        return Doubt(
            "unreliable",
            f"it learned from what {self.policy!r} logged up to {self.position}, and"
            f" {seen.placed_again:,} of these"
            f" {rows:,} rows are of that time, so its values are too high; {OTHERS}",
        )


def provenance_of(policy: Any) -> Provenance | None:
    """Of a policy that is evaluated; None of one that has learned from no rows."""
    found: Provenance | None = getattr(policy, "provenance", None)
    return found


def count_seen(
    seen: Mapping[str, RowOverlap], targets: Iterable[Any], piece: Piece, batch: LogBatch
) -> None:
    """How many rows of a batch each policy has learned from."""
    for target in targets:
        provenance = provenance_of(target)
        if provenance is not None:
            provenance.count(seen[target.name], piece, batch)


def doubts_of(
    targets: Iterable[Any], seen: Mapping[str, RowOverlap], rows: int
) -> dict[str, Doubt]:
    """Of the policies whose estimates cannot be taken as they are, because of what they learned from."""
    found = ((target.name, provenance_of(target)) for target in targets)
    doubts = {name: each.doubt(seen[name], rows) for name, each in found if each is not None}
    return {name: doubt for name, doubt in doubts.items() if doubt is not None}


def learn_from(learning: RowSampler, piece: Piece, batch: LogBatch) -> None:
    """A model learns from a batch of a piece."""
    learning.add(_name(piece), *hashes_of(piece, batch), batch.times_ms.tolist())


def hashes_of(piece: Piece, batch: LogBatch) -> tuple[UInt64, UInt64]:
    """Of each row: uint64[n] of its id or place with what it says, and uint64[n] of what it says.

    A place is one in the file, whatever the file is called. The reward is left out: it may be
    corrected.
    """
    file = _file(piece)
    said = [_encode(_content(row)) for row in batch.decisions]
    placed = [
        _hash(
            f"{row.event_id.removeprefix(file)}\0{row.slot}\0".encode(errors="surrogatepass")
            + content
        )
        for row, content in zip(batch.decisions, said, strict=True)
    ]
    return np.array(placed, np.uint64), np.array([_hash(content) for content in said], np.uint64)


def _content(row: LoggedDecision) -> Any:
    context = {name: _plain(value) for name, value in row.context.items()}
    return (
        context,
        row.action_ids[row.chosen],
        len(row.action_ids),
        row.propensity,
        row.slot,
        row.time_ms,
    )


def _plain(value: Any) -> Any:
    """A number and the text of it are one: a table decides for each file which of them its column holds."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    try:
        return format(float(value), ".15g")
    except ValueError:
        return value


def _hash(data: bytes) -> int:
    return mmh3.hash64(data, signed=False)[0]


def _within(piece: Any) -> Any:
    while hasattr(piece, "piece"):
        piece = piece.piece
    return piece


def _file(piece: Piece) -> str:
    return str(getattr(getattr(_within(piece), "span", None), "name", ""))


def _name(piece: Piece) -> str:
    """The file, or the policy and where its archive's piece begins and ends."""
    inner = _within(piece)
    if hasattr(inner, "after"):
        return f"the archive of {inner.policy}, {inner.after} to {inner.through or 'its end'}"
    return (
        f"the archive of {inner.policy}"
        if hasattr(inner, "policy")
        else _file(piece) or "a log in memory"
    )
