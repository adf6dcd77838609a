"""What shadows have said, as files beside the archive of their policy's log.

    <root>/<policy>/_shadows/current                   the shadows of the policy that is served
    <root>/<policy>/_shadows/<name>/<digest>/state     how far one of them is
    <root>/<policy>/_shadows/<name>/<digest>/checkpoint   what it goes on from
    <root>/<policy>/_shadows/<name>/<digest>/<number>.parquet   its PMFs, PART decisions a file

All of it follows from the log: a file that is written again has the same bytes, whoever writes it.
Readers of the log as partitioned data pass over names that start with _.
"""

import io
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from bandits.log.codec import MALFORMED
from bandits.log.positions import is_after
from policies.shadows.following import DecisionPmfs
from policies.storage import Storage

PART: Final = 4096
"""Decisions in a file."""
SCHEMA: Final = pa.schema(
    [
        pa.field("position", pa.string(), nullable=False),
        pa.field("event", pa.uint64(), nullable=False),
        pa.field("slot", pa.int16(), nullable=False),
        pa.field("pmf", pa.list_(pa.float64()), nullable=False),
    ]
)
"""A row for each slot of a decision; ``event``: 64 bits of its event_id's hash."""
PARQUET: Final = ".parquet"
Kind = TypeVar("Kind")


class NamedShadow(msgspec.Struct, frozen=True, omit_defaults=True):
    """A shadow of the policy that is served.

    Attributes:
        name: its own.
        digest: of what it computes; empty where it cannot be followed.
        refused: why it cannot.
    """

    name: str
    digest: str = ""
    refused: str = ""


class ShadowState(msgspec.Struct, frozen=True):
    """How far a shadow is.

    Attributes:
        state: ``follows``, or ``failed``: it cannot go on, and is tried again.
        position: of the newest entry of the log that it has followed.
        decisions: of how many it has said something.
        passed_over: of how many it could say nothing.
        first_passed_over: why of the first of them.
        message: why it cannot go on.
        at_ms: when this was said, by the clock of its machine.
    """

    state: Literal["follows", "failed"]
    position: str
    decisions: int = 0
    passed_over: int = 0
    first_passed_over: str = ""
    message: str = ""
    at_ms: int = 0


class ShadowCheckpoint(msgspec.Struct, frozen=True):
    """What a shadow goes on from: its fold at an entry of the log, and what it had said by then."""

    position: str
    decisions: int
    passed_over: int
    first_passed_over: str
    fold: bytes


class PolicyShadows:
    """The files of one policy's shadows. ``root``: see Storage."""

    def __init__(self, root: "str | Path | fs.FileSystem", policy: str) -> None:
        self._root, self._folder = root, f"{policy}/_shadows"
        self._files = Storage(root, self._folder)

    def current(self) -> list[NamedShadow]:
        """Return the shadows of the policy that is served, or was last."""
        return _read(self._files, "current", list[NamedShadow]) or []

    def say_current(self, shadows: Sequence[NamedShadow]) -> None:
        """Say which there are."""
        _write(self._files, "current", msgspec.json.encode(shadows))

    def of(self, shadow: NamedShadow) -> "ShadowFiles":
        """Return the files of one of them."""
        return ShadowFiles(Storage(self._root, f"{self._folder}/{shadow.name}/{shadow.digest}"))


class ShadowFiles:
    """The files of one shadow."""

    def __init__(self, files: Storage) -> None:
        self._files = files

    def state(self) -> ShadowState | None:
        """Return how far it is; None: it has not begun."""
        return _read(self._files, "state", ShadowState)

    def say_state(self, state: ShadowState) -> None:
        """Say how far it is."""
        _write(self._files, "state", msgspec.json.encode(state))

    def checkpoint(self) -> ShadowCheckpoint | None:
        """Return what it goes on from; None: it begins."""
        try:
            with self._files.open("checkpoint") as file:
                return msgspec.msgpack.decode(file.read(), type=ShadowCheckpoint)
        except (FileNotFoundError, *MALFORMED):
            return None

    def store_checkpoint(self, checkpoint: ShadowCheckpoint) -> None:
        """Store what it goes on from: after all that it had said by then."""
        _write(self._files, "checkpoint", msgspec.msgpack.encode(checkpoint))

    def store(self, number: int, decisions: Sequence[DecisionPmfs]) -> None:
        """Store a file, or what there is of it yet.

        Args:
            number: the file's, from 0.
            decisions: those that it holds, from its first on.
        """
        rows = [(each, slot) for each in decisions for slot in range(len(each.pmfs))]
        pmfs = [each.pmfs[slot] for each, slot in rows]
        sizes = np.array([0, *map(len, pmfs)], np.int64).cumsum().astype(np.int32)
        columns = [
            pa.array([each.position for each, _ in rows], pa.string()),
            pa.array([each.event for each, _ in rows], pa.uint64()),
            pa.array([slot for _, slot in rows], pa.int16()),
            pa.ListArray.from_arrays(
                pa.array(sizes), pa.array(np.concatenate(pmfs) if pmfs else np.zeros(0))
            ),
        ]
        sink = io.BytesIO()
        pq.write_table(pa.table(columns, schema=SCHEMA), sink, compression="zstd")
        sink.seek(0)
        self._files.put(_name(number), sink)

    def stored(self, number: int) -> list[DecisionPmfs]:
        """Return what a file holds; nothing where there is no such file, or it is damaged."""
        try:
            with self._files.open(_name(number)) as file:
                table = pq.read_table(file)
        except (FileNotFoundError, pa.ArrowException):
            return []

        out = list[DecisionPmfs]()
        for batch in table.to_batches():
            lists = batch.column("pmf")
            bounds, values = lists.offsets.to_numpy(), lists.values.to_numpy()
            rows = zip(
                batch.column("position").to_pylist(),
                batch.column("event").to_pylist(),
                batch.column("slot").to_pylist(),
                pairwise(bounds.tolist()),
                strict=True,
            )
            for position, event, slot, (begin, end) in rows:
                if slot == 0:
                    out.append(DecisionPmfs(position, event, []))
                out[-1].pmfs.append(values[begin:end])
        return out

    def newest(self, after: str) -> Iterator[DecisionPmfs]:
        """Yield what it says of the decisions past a position, file by file, the newest file first.

        Args:
            after: the position.
        """
        names = [str(info.base_name) for info in self._files.list()]
        numbers = [int(name.removesuffix(PARQUET)) for name in names if name.endswith(PARQUET)]
        for number in sorted(numbers, reverse=True):
            found = self.stored(number)
            yield from (each for each in found if is_after(each.position, after))
            if found and not is_after(found[0].position, after):
                return


def _name(number: int) -> str:
    return f"{number:08d}{PARQUET}"


def _read(files: Storage, name: str, kind: type[Kind]) -> Kind | None:
    """Return what a file says; None where there is none, or it cannot be read."""
    try:
        with files.open(name) as file:
            return msgspec.json.decode(file.read(), type=kind)
    except (FileNotFoundError, *MALFORMED):
        return None


def _write(files: Storage, name: str, data: bytes) -> None:
    files.put(name, io.BytesIO(data))
