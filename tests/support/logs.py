"""Decisions and random logs that the tests of the join, the fold and the learner share."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
from hypothesis import strategies as st
from support.fakes import FakeLog
from support.items import MemoryItems

from bandits.log.codec import encode
from bandits.log.join import JoinRule
from bandits.log.records import (
    ActivationRecord,
    DecisionRecord,
    LogEntry,
    LogRecord,
    RewardRecord,
    TickRecord,
)
from policies.archive.archive import ArchiveWriter
from policies.archive.range_file import Range, hour_of
from policies.archive.shared import shared_folder
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec

WINDOW = 10_000
RULE = JoinRule(window_s=WINDOW / 1000, default_reward=-1.0)


def decision(
    event_id: str = "e", *, ids: tuple[str, ...] = ("a", "b", "c"), chosen=(0,), **changes
) -> DecisionRecord:
    """A decision of uniform PMFs."""
    pmfs = np.zeros((len(chosen), len(ids)))
    for slot in range(len(chosen)):
        left = [k for k in range(len(ids)) if k not in chosen[:slot]]
        pmfs[slot, left] = 1 / len(left)
    record = DecisionRecord(
        event_id=event_id,
        policy="home",
        spec="spec",
        snapshot_id="s0",
        catalogue="none",
        context={"hour": 3.0},
        action_ids=list(ids),
        features=None,
        scores={},
        pmf=pmfs.tobytes(),
        chosen=list(chosen),
    )
    return msgspec.structs.replace(record, **changes)


# A random log: a few event ids, times that go forward, all kinds of entries

NAMES = st.sampled_from("abcd")
RANDOM_RECORDS = st.one_of(
    st.builds(
        lambda name, deferred, holdout, chosen: decision(
            name, deferred=deferred, holdout=holdout, chosen=chosen
        ),
        NAMES,
        st.booleans(),
        st.booleans(),
        st.sampled_from([(0,), (2,), (1, 0), (2, 1, 0)]),
    ),
    st.builds(
        RewardRecord,
        NAMES,
        st.sampled_from([0.0, 1.0, -2.0]),
        st.none() | st.sampled_from(["r1", "r2"]),
        st.none() | st.integers(0, 3),
        st.none() | st.sampled_from(["a", "b", "z"]),
        st.none() | st.sampled_from(["click", "buy", "share"]),
    ),
    st.builds(ActivationRecord, NAMES),
    st.just(TickRecord()),
)
RANDOM_LOGS = st.lists(st.tuples(st.integers(0, 6000), RANDOM_RECORDS), max_size=60)


def stream(steps: list[tuple[int, LogRecord]]) -> Iterator[LogEntry]:
    now = 0
    for number, (wait, record) in enumerate(steps):
        now += wait
        yield LogEntry(f"{now}-{number}", record)


def log_of(steps: list[tuple[int, LogRecord]], *specs: PolicySpec) -> FakeLog:
    """The steps as a log that begins with the first spec; its decisions name the spec in force."""
    log, spec, now = FakeLog(specs[0]), specs[0], 1
    empty = Catalogue()
    log.blobs[empty.digest] = empty.encoded
    for number, (wait, record) in enumerate(steps):
        now += wait
        if number == len(steps) // 2:
            for changed in specs[1:]:
                log.configure(changed, at=now)
                spec = changed
        named = record
        if isinstance(record, DecisionRecord):
            named = msgspec.structs.replace(record, spec=spec.digest, catalogue=empty.digest)
        log.append(named, at=now)
    log.append(TickRecord(), at=now + 3 * WINDOW)
    return log


def archived(
    root: Path,
    log: Sequence[LogEntry],
    spec: PolicySpec,
    files: int = 5,
    blobs: Mapping[str, bytes] | None = None,
) -> Path:
    """The log of policy p as an archive, in about so many files.

    ``blobs``: all that its entries name.
    """
    blobs = (
        {spec.digest: spec.encoded, Catalogue().digest: Catalogue().encoded}
        if blobs is None
        else blobs
    )
    write_archive(ArchiveWriter(root, "p"), log, files, blobs)
    return root


def archive_items(root: Path, space: str, items: MemoryItems, files: int = 5) -> None:
    """The log of a space's items as an archive."""
    write_archive(
        ArchiveWriter(root, shared_folder(space, "items")), items.entries, files, items.blobs
    )


def write_archive(
    writer: ArchiveWriter, log: Sequence[LogEntry], files: int, blobs: Mapping[str, bytes]
) -> None:
    previous = "0-0"
    for part in np.array_split(np.arange(len(log)), files):
        entries = [(log[i].id, encode(log[i].record)) for i in part]
        for hour in sorted({hour_of(entry_id) for entry_id, _ in entries}):
            own = [entry for entry in entries if hour_of(entry[0]) == hour]
            missing = writer.write(Range(previous, own[0][0], own[-1][0], len(own)), own, blobs.get)
            assert not missing
            previous = own[-1][0]
