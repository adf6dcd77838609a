"""The rules by which an evaluation joins an archive's decisions with their rewards."""

import contextlib

import msgspec

from bandits.errors import SpecError
from bandits.log.join import JoinRule
from bandits.log.positions import START
from bandits.log.records import SpecRecord, WarmStartRecord
from policies.archive.archive import ArchiveReader
from policies.blend import make_learner
from policies.fold.checkpoint import Relearned
from policies.spec import PolicySpec, decode_spec


def evaluation_rule(rule: JoinRule, window_s: float | None = None) -> JoinRule:
    """Return the rule by which an evaluation joins: once, when the window closes.

    Args:
        rule: The rule of the policy's spec.
        window_s: Longest window in seconds; None: the rule's own.
    """
    shorter = rule if window_s is None else rule.shortened(window_s)
    return msgspec.structs.replace(shorter, learn="at_close", late="ignore")


def spec_in_force(reader: ArchiveReader, digest: str) -> PolicySpec | None:
    """Return the spec that an entry names; None if the learner refuses it.

    The spec before then stays in force.

    Args:
        reader: The archive that holds the spec as a blob.
        digest: The spec's, as the entry has it: 32 hex digits.

    Raises:
        ArchiveError: There is no such blob, or it is damaged.
    """
    data = reader.blob(digest)
    try:
        spec = decode_spec(data)
        with contextlib.suppress(MemoryError):
            make_learner(spec, salt=b"")
    except SpecError:
        return None
    return spec


def relearned_in(reader: ArchiveReader) -> Relearned | None:
    """Return whose signals count for decisions of specs before, if the log was learned anew.

    Args:
        reader: The archive; only its specs and warm starts are read.

    Raises:
        ArchiveError: The archive is damaged.
    """
    entered: list[str] = []
    found = None
    for entry in reader.entries(START, None, kinds=["spec", "warm_start"]):
        record = entry.record
        if isinstance(record, SpecRecord):
            entered.append(record.digest)
        elif isinstance(record, WarmStartRecord) and record.through is not None and entered:
            by = entered[-1]
            found = Relearned(by, sorted({*entered} - {by}))
    return found
