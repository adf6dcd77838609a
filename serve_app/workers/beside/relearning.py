"""Learning the log anew when the weights of signals change, while its leader learns on.

In a thread beside the leader's loop, which works at most half of the time. What it has learned goes
into the log as a warm start; whoever leads next begins again where this one dies before.
"""

import logging
import threading
import time
from collections.abc import Callable

import msgspec

from bandits.errors import BanditloopError
from bandits.log.codec import digest
from bandits.log.positions import START
from bandits.log.records import WarmStartRecord
from policies.fold.fold import Fold
from policies.spec import PolicySpec
from serve_app.store.clients import FAILURES
from serve_app.workers.learner_log import LearnerLog

READ = 250
RETRY_S = 60.0

log = logging.getLogger("banditloop.learner")


class Relearning:
    """Learns a log anew for its leader, where the deployed spec asks for it.

    Args:
        learner_log: the log, which its leader alone appends to.
        spec: the deployed one, whose on_change counts.
        beside: makes a fold that weighs all rewards as a spec does, of this digest.
    """

    def __init__(
        self, learner_log: LearnerLog, spec: PolicySpec, beside: Callable[[str], Fold]
    ) -> None:
        self._log = learner_log
        self._spec = spec
        self._beside = beside
        self._work: _Work | None = None
        self._given: object = None
        self._not_before = 0.0

    def lead(self, fold: Fold) -> None:
        """Begin, go on or hand over, as the leader's fold asks for it."""
        if not self._is_wanted(fold):
            self.stop()
            return

        # What has been handed over is refused or taken when its entry is applied.
        work = self._work
        if work is None:
            if time.monotonic() >= self._not_before and self._given != _answers(fold):
                log.info("policy %s is learned anew under its new weights", self._spec.name)
                self._work = _Work(self._log, self._beside(self._spec.digest))
            return

        if work.failure is not None:
            log.warning("policy %s could not be learned anew: %s", self._spec.name, work.failure)
            self._work, self._not_before = None, time.monotonic() + RETRY_S
        elif work.made is not None:
            position, state = work.made
            self._log.reader.put_blob(digest(state), state)
            self._log.append(WarmStartRecord(digest(state), position))
            log.info("policy %s was learned anew up to %s", self._spec.name, position)
            self._work, self._given = None, _answers(fold)
            self._not_before = time.monotonic() + RETRY_S

    def stop(self) -> None:
        """Leave off, if it has begun."""
        if self._work is not None:
            self._work.stop.set()
        self._work = self._given = None

    def _is_wanted(self, fold: Fold) -> bool:
        if fold.spec_id != self._spec.digest:
            return False
        # A spec of before, whose decisions are weighed by a later one, has no weights of its own.
        known = fold.relearned
        again = known is not None and fold.spec_id in known.specs
        return again or (fold.is_mixed and self._spec.on_change == "relearn")


def _answers(fold: Fold) -> object:
    """Return what changes when an entry is taken or refused."""
    return fold.relearned, fold.refused_warm_starts


class _Work:
    """One fold beside, in a thread: ``made`` or ``failure`` is set when it has ended."""

    def __init__(self, learner_log: LearnerLog, fold: Fold) -> None:
        self.stop = threading.Event()
        self.made: tuple[str, bytes] | None = None
        self.failure: str | None = None
        self._log, self._fold = learner_log, fold
        threading.Thread(target=self._run, name="relearning", daemon=True).start()

    def _run(self) -> None:
        try:
            self._learn()
        except BanditloopError as error:
            self.failure = error.message
        except (OSError, *FAILURES) as error:
            self.failure = str(error) or type(error).__name__

    def _learn(self) -> None:
        began = time.monotonic()
        batch = []
        for entry in self._log.history.encoded(START, batch=READ):
            batch.append(entry)
            if len(batch) == READ:
                self._fold.apply(batch)
                batch = []

                # It leaves the process to others as long as it has used it.
                if self.stop.wait(time.monotonic() - began):
                    return
                began = time.monotonic()

        self._fold.apply(batch)
        self.made = self._fold.position, msgspec.msgpack.encode(self._fold.state())
