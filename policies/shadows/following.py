"""The PMFs of a shadow, decision by decision, as it would have made them when they were made.

Before a decision it has learned what came before the second of that decision, as a policy that is
served has. So its PMFs depend on the log alone: whoever follows the log again, from its start or
from a checkpoint, finds the same bytes.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from bandits.decide import left_after
from bandits.errors import BanditloopError
from bandits.features.hashing import event_key
from bandits.log.encoded_decisions import DECISIONS, whole_record
from bandits.log.positions import START
from bandits.log.records import CheckpointRecord, DecisionRecord, LogEntry
from bandits.types import Pmf, Policy, check_pmf
from policies.blend import load_policy
from policies.decisions.mixture import Mixture
from policies.features import featurise_record
from policies.items.catalogue import Catalogue
from policies.shadows.fold import ShadowFold
from policies.spec import PolicySpec

RENEWED_MS: Final = 1000
"""How often, by the log's clock, what has been learned is chosen by."""


class DecisionPmfs(NamedTuple):
    """What a shadow says of one decision.

    Attributes:
        position: the decision's entry.
        event: 64 bits of the hash of its event_id.
        pmfs: by slot, the probabilities of the actions that the slots before have left.
    """

    position: str
    event: int
    pmfs: list[Pmf]


def pmfs_of(
    spec: PolicySpec, policy: Policy, catalogue: Catalogue, record: DecisionRecord
) -> list[Pmf]:
    """Return what a policy would have chosen by in each slot of a decision, after what was chosen.

    Args:
        spec: the policy's.
        policy: what makes the PMFs.
        catalogue: the items that the record names.
        record: the decision; what its rules added to scores and barred from its page holds.

    Raises:
        InvalidPmfError: what the policy computes is no PMF.
    """
    context, actions = featurise_record(spec, catalogue, record)
    out = []
    for slot in range(len(record.chosen)):
        _, left = left_after(actions, record.chosen[:slot], record.page)
        out.append(check_pmf(policy.pmf(context, left)))
    return out


class ShadowFollower:
    """Follows a log as a shadow.

    ``position``: of the newest entry that was followed. ``passed_over``: decisions of which the
    shadow says nothing, and ``first_passed_over`` why the first of them.

    Args:
        spec: the policy's spec with the shadow's model.
        fold: of the log, empty or resumed at a checkpoint of its own.
    """

    def __init__(self, spec: PolicySpec, fold: ShadowFold) -> None:
        self._spec, self._fold = spec, fold
        self.position = fold.position
        self.passed_over, self.first_passed_over = 0, ""
        self._second = -1
        self._policy: Policy | None = None
        self._changes = -1
        self._waiting: list[LogEntry] = []
        if self.position != START:
            self._second = LogEntry(self.position, CheckpointRecord()).time_ms // RENEWED_MS
            self._renew()

    def follow(self, entries: Iterable[LogEntry]) -> Sequence[DecisionPmfs]:
        """Follow the log by some entries; return what the shadow says of the decisions in them.

        Args:
            entries: the next ones, in order; any split of the log into calls gives the same.

        Raises:
            NewerBuildError, StalledError: see ``Fold.apply``.
        """
        made = list[DecisionPmfs]()
        for entry in entries:
            second = entry.time_ms // RENEWED_MS
            if second != self._second:
                self._apply()
                self._second = second
                if self._fold.changes != self._changes:
                    self._renew()

            record = entry.record
            if isinstance(record, DECISIONS):
                said = self._said_of(entry.id, whole_record(record))
                made += [] if said is None else [said]
            self._waiting.append(entry)

            # Whoever resumes here has what was learned up to here.
            if isinstance(record, CheckpointRecord):
                self._apply()
                self._renew()
        self._apply()
        return made

    def _apply(self) -> None:
        if self._waiting:
            self._fold.apply(self._waiting)
            self.position = self._waiting[-1].id
            self._waiting = []

    def _renew(self) -> None:
        """Choose by all that was learned."""
        self._changes = self._fold.changes
        if self._fold.learner is not None:
            self._policy = _served_by(self._spec, self._fold)

    def _said_of(self, position: str, record: DecisionRecord) -> DecisionPmfs | None:
        """Return what the shadow says of a decision; None: nothing was drawn, or it cannot say."""
        if not record.chosen:
            return None
        if self._policy is None:
            # The first decisions of a log come in the second in which its spec does.
            self._apply()
            self._renew()
        if self._policy is None:
            self._pass_over(position, "no spec was in force yet")
            return None
        try:
            catalogue = self._fold.catalogue_of(record.catalogue)
            pmfs = pmfs_of(self._spec, self._policy, catalogue, record)
        except BanditloopError as error:
            self._pass_over(position, error.message)
            return None
        return DecisionPmfs(position, event_key(record.event_id), pmfs)

    def _pass_over(self, position: str, why: str) -> None:
        self.passed_over += 1
        self.first_passed_over = self.first_passed_over or f"the decision at {position}: {why}"


def _served_by(spec: PolicySpec, fold: ShadowFold) -> Policy:
    """Return the policy that a shadow is, by what its fold has learned."""
    policy = load_policy(spec, fold.snapshot())
    return Mixture(policy, spec.within, spec.floor) if spec.kind == "mixture" else policy
