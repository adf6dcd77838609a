"""The metrics of a loop in Apprentice mode: counted from its log, by a process of their own.

They are as of when they were counted last. Whoever asks has them counted anew, if that was some
time ago. Run as a program it reads a policy's address from its input, and writes metrics.
"""

import logging
import subprocess
import sys
import time
from typing import Any

import msgspec

from policies.personalizer.apprentice_metrics import (
    ApprenticeModeMetrics,
    ApprenticeTally,
    added_up,
)
from serve_app.store.clients import Redis
from serve_app.store.keys import Keys, partitions

EVERY_S = 60
"""They are not counted more often."""
REST = 5
"""Nor more often than this many times as long as it takes."""
LONGEST_S = 1800
_MARK = "apprenticeship"
_metrics = msgspec.json.Decoder(ApprenticeModeMetrics | None)

log = logging.getLogger("banditloop.personalizer")


def read_metrics(client: Redis, policy: str) -> ApprenticeModeMetrics | None:
    """Return the metrics as they were counted last; None: never.

    Args:
        client: a connection.
        policy: the policy's name.
    """
    data: Any = client.get(Keys(policy).apprenticeship)
    return None if data is None else _metrics.decode(data)


def may_count(client: Redis, policy: str) -> bool:
    """Return whether it is time to count, and say to all others that it is being done.

    Args:
        client: a connection.
        policy: the policy's name.
    """
    return bool(client.set(Keys(policy).at_work(_MARK), b"1", nx=True, ex=EVERY_S))


def count_again(client: Redis, policy: str, address: bytes) -> None:
    """Count and keep the metrics; it blocks.

    Args:
        client: a connection.
        policy: the policy's name.
        address: of its log.
    """
    began, keys = time.monotonic(), Keys(policy)
    with subprocess.Popen(  # noqa: S603 - this program
        ["nice", "-n", "10", sys.executable, "-m", __name__],  # noqa: S607
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as counting:
        while True:
            # Whoever dies meanwhile says no more that it is at it, and another begins.
            try:
                out, said = counting.communicate(address, timeout=EVERY_S / 3)
                break
            except subprocess.TimeoutExpired:
                client.expire(keys.at_work(_MARK), EVERY_S)
                if time.monotonic() - began > LONGEST_S:
                    counting.kill()

    client.expire(keys.at_work(_MARK), max(EVERY_S, round(REST * (time.monotonic() - began))))
    if counting.returncode:
        why = said.decode(errors="replace").strip()[-300:]
        log.warning("policy %s: its metrics are not counted: %s", policy, why)
        return
    found = _metrics.decode(out)
    if found is None:
        client.delete(keys.apprenticeship)
    else:
        kept = found.after(read_metrics(client, policy))
        client.set(keys.apprenticeship, msgspec.json.encode(kept))


def counted(address: bytes) -> ApprenticeModeMetrics | None:
    """Return the metrics, counted from the log of an address; None: there are none."""
    from bandits.log.join import JoinedDecision  # noqa: PLC0415 - a replica does without
    from policies.fold.join_only import JoinOnlyFold  # noqa: PLC0415
    from serve_app.admin.replayed.verification import LogAddress  # noqa: PLC0415
    from serve_app.store.checkpoints import Checkpoints  # noqa: PLC0415
    from serve_app.store.clients import blocking_client  # noqa: PLC0415
    from serve_app.store.history import LogPast, batched  # noqa: PLC0415

    class Counting(JoinOnlyFold):
        """A fold that tells of each decision whose windows have closed."""

        tally: ApprenticeTally

        def _learn_or_refuse(self, joined: JoinedDecision) -> None:
            self.tally.add(joined)

        def _learn_alike(self, joined: list[JoinedDecision], first: int) -> int:
            for each in joined[first:]:
                self.tally.add(each)
            return len(joined) - first

    where = msgspec.msgpack.decode(address, type=LogAddress)
    stored = where.open()
    client, keys = blocking_client(where.url), partitions(where.policy, stored.partitions)
    parts: list[ApprenticeModeMetrics] = []
    for history, key in zip(where.histories(len(keys)), keys, strict=True):
        past = LogPast(history, Checkpoints(client, key))
        fold = Counting(history.blob, salt=where.salt, past=past)
        fold.tally = ApprenticeTally()
        root = past.root()
        if root is not None:
            fold.begin_at(root[1], past)
        for batch in batched(history.encoded(fold.position), 1000):
            fold.apply(batch)
        if fold.tally.metrics is not None:
            parts.append(fold.tally.metrics)
    return added_up(parts)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(counted(sys.stdin.buffer.read())))
