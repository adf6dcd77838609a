"""The few columns that a join reads when it goes through an archive again."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa

from bandits.log.older_decisions import Opened, Opening
from bandits.log.records import ActivationRecord, LogRecord, RewardRecord, TickRecord
from policies.archive.archive import ArchiveReader
from policies.archive.parts.objects import lists_of, plain_values, texts_of
from policies.archive.parts.ruled import placements_of
from policies.archive.parts.shapes import bounds_of, elements_of

OF_REWARDS = ["event_id", "reward", "reward_id", "slot", "action_id", "signal"]
OF_DECISIONS = ["event_id", "spec", "catalogue", "deferred"]
COLUMNS = ["id", "kind", *OF_REWARDS, *OF_DECISIONS[1:], "chosen", "action_ids", "placed"]
TICK = TickRecord()


def openings(archive: ArchiveReader, after: str, through: str | None = None) -> Iterator[Opened]:
    """Yield the position of each entry, and of what opens or changes a window what it says.

    All others but builds read as ticks: time passes.

    Args:
        archive: where the log is.
        after: entries past this position.
        through: up to this one; None for all.

    Raises:
        ArchiveError: a file is damaged or missing.
    """
    builds = {entry.id: entry.record for entry in archive.entries(after, through, kinds=["build"])}

    for group in archive.columns(COLUMNS, after, through):
        batch = group.batch
        positions, kinds = plain_values(batch["id"]), plain_values(batch["kind"])
        rewards = zip(*(plain_values(batch[name]) for name in OF_REWARDS), strict=True)
        decisions = zip(*(plain_values(batch[name]) for name in OF_DECISIONS), strict=True)
        placed = [each or () for each in lists_of(batch["placed"], placements_of)]
        rows = zip(positions, kinds, rewards, decisions, _chosen(batch), placed, strict=True)

        for position, kind, reward, decision, chosen, on_page in rows:
            record: Opening | LogRecord = TICK
            if kind == "decision":
                record = Opening._make((*decision, chosen, on_page))
            elif kind == "reward":
                record = RewardRecord(*reward)
            elif kind == "activation":
                record = ActivationRecord(reward[0])
            yield position, builds.get(position, record) if kind == "build" else record


def _chosen(batch: pa.RecordBatch) -> list[list[str]]:
    """Return the chosen actions of each row."""
    chosen, actions = batch["chosen"], batch["action_ids"]
    slots, first = bounds_of(chosen), bounds_of(actions)[:-1]
    places = elements_of(chosen, chosen.values).to_numpy() + np.repeat(first, np.diff(slots))

    ids = texts_of(elements_of(actions, actions.values).take(pa.array(places)))
    bounds = slots.tolist()
    return [ids[begin:end] for begin, end in pairwise(bounds)]
