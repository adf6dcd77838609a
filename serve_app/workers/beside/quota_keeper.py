"""Holding the quotas of a policy: measure what decisions gave a chance, and say new prices.

The state of the controller is an entry of the log; replicas find it beside the pointer to the
snapshot. A standby measures, too, and says nothing: it goes on from the state that serves.
"""

import logging
import time
from collections.abc import Sequence
from typing import Final

from bandits.errors import BanditloopError
from bandits.log.encoded_decisions import DECISIONS
from bandits.log.records import ControlRecord, LogEntry
from policies.fold.fold import Fold
from policies.rules.quotas.compiled import Quotas
from policies.rules.quotas.controller import Controller
from policies.rules.quotas.measure import ShareMeter
from policies.rules.quotas.quota import Control
from serve_app.workers.learner_log import LearnerLog
from serve_app.workers.publisher import SnapshotWriter

SAY_S: Final = 1.0
"""Shortest time between two states."""
MOST_A_SECOND: Final = 200
"""Decisions of one second that are measured: they say enough of all."""
MOST_AT_ONCE: Final = 1_000
"""How many are measured in a second of this process, which may be far behind its log."""

log = logging.getLogger("banditloop.quotas")


class QuotaKeeper:
    """Holds the quotas of one policy, in the learner of its log, or of partition 0.

    Args:
        learner_log: where states are said.
        spec: the digest of the policy's spec, of whose decisions alone shares are measured.
        quotas: the policy's.
    """

    def __init__(self, learner_log: LearnerLog, spec: str, quotas: Quotas) -> None:
        self.controller = Controller(quotas)
        self._log = learner_log
        self._spec = spec
        self._meter = ShareMeter(quotas)
        self._obeyed: Control | None = None
        self._said: dict[str, float] | None = None
        self._said_at = -SAY_S
        self._second = self._in_second = 0
        self._began_at = 0.0
        self._at_once = 0
        self._warned = ""

    def applied(self, fold: Fold, entries: Sequence[LogEntry]) -> None:
        """Measure the decisions among some entries.

        Args:
            fold: it has just applied them.
            entries: of its log.
        """
        for entry in entries:
            record = entry.record
            is_own = isinstance(record, DECISIONS) and record.spec == self._spec
            if not isinstance(record, DECISIONS) or not is_own or record.holdout:
                continue
            if self._is_enough(entry.time_ms):
                continue
            try:
                self.controller.measured(entry.time_ms, fold.measured(self._meter, record))
            except BanditloopError as error:
                if self._warned != error.message:
                    log.warning("the share of %s is not known: %s", entry.id, error.message)
                self._warned = error.message

    def lead(self, fold: Fold, snapshots: SnapshotWriter) -> None:
        """Have the newest state served, and say a new one if it is another.

        Args:
            fold: of the log, which has the newest state.
            snapshots: writes what replicas find.

        Raises:
            LeaseLostError, RedisError: see ``Lease.guarded``.
        """
        self._obey(fold.control)
        self._log.quotas = self.controller.states
        if snapshots.control != fold.control:
            snapshots.steer(fold.control)

        now, known = time.monotonic(), self._said
        if known is None:
            known = {} if fold.control is None else fold.control.prices
        if now - self._said_at < SAY_S or not self.controller.changed_from(known):
            return
        prices = self.controller.prices
        self._log.append(ControlRecord(prices))
        self._said, self._said_at = prices, now

    def _obey(self, control: Control | None) -> None:
        """Go on from a state that another leader has said."""
        if control is None or control == self._obeyed:
            return
        self._obeyed = control
        if control.prices != self._said:
            self.controller.obey(control.prices)
            self._said = control.prices

    def _is_enough(self, time_ms: int) -> bool:
        """Return whether enough of this second was measured; else count one more."""
        if time_ms // 1000 != self._second:
            self._second, self._in_second = time_ms // 1000, 0
        if (now := time.monotonic()) - self._began_at >= 1.0:
            self._began_at, self._at_once = now, 0
        if self._in_second >= MOST_A_SECOND or self._at_once >= MOST_AT_ONCE:
            return True
        self._in_second += 1
        self._at_once += 1
        return False
