"""What the log names by digest: specs, catalogues, snapshots.

They are there, and PMFs derive from them again.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from bandits.decide import Decision
from bandits.errors import BanditloopError
from bandits.log.codec import digest
from bandits.log.records import (
    BuildRecord,
    CatalogueRecord,
    DecisionRecord,
    LogEntry,
    SpecRecord,
    WarmStartRecord,
)
from bandits.types import ActionSet, Context, Float64, Policy, Snapshot
from policies.catalogue import Catalogue
from policies.features import featurise_record
from policies.guardrails import FixedPolicy
from policies.mixture import Mixture
from policies.ranker import Ranker
from policies.spec import PolicySpec, decode_spec
from simulator.doctor.audit import redraws
from simulator.doctor.checks.findings import Finding, Severity, found, nothing

Kind = TypeVar("Kind")

CLOSE = 1e-6
"""Across builds (processors, library versions) a model's arithmetic agrees to this."""
LOOKS = 3
"""Times to look for a snapshot before it is called gone."""
OTHER_BUILD = 0.05
"""Across builds a tie may fall otherwise, and the PMF with it: that explains no larger share of them."""


@dataclass(slots=True, eq=False)
class Stored:
    """What is kept beside a log. ``blob``: the bytes under a digest, None when gone.

    ``snapshot``: the one of an id, None when it has been forgotten, as all but the newest are;
    raises SnapshotError when its bytes are not those its id names. ``listed``: snapshots that
    should be there, as of when it is asked: of a live policy they move on.
    """

    blob: Callable[[str], bytes | None] = lambda _: None
    snapshot: Callable[[str], Snapshot | None] = lambda _: None
    listed: Callable[[], Collection[str]] = frozenset
    _held: dict[str, bool] = field(default_factory=dict)
    _specs: dict[str, PolicySpec | None] = field(default_factory=dict)
    _catalogues: dict[str, Catalogue | None] = field(
        default_factory=lambda: {Catalogue().digest: Catalogue()}
    )

    def holds(self, name: str) -> bool:
        """Whether the bytes of a digest are there, whatever they are."""
        if name not in self._held:
            data = self.blob(name)
            self._held[name] = data is not None and digest(data) == name
        return self._held[name]

    def spec(self, name: str) -> PolicySpec | None:
        """The spec of a digest, None when it is gone or is not what its digest says."""
        if name not in self._specs:
            self._specs[name] = _decoded(self.blob(name), name, decode_spec)
        return self._specs[name]

    def catalogue(self, name: str) -> Catalogue | None:
        """The catalogue of a digest, None when it is gone or is not what its digest says."""
        if name not in self._catalogues:
            self._catalogues[name] = _decoded(self.blob(name), name, Catalogue.decode)
        return self._catalogues[name]


class Gaps:
    """Is everything the log names still stored? Without it the log cannot be replayed."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._specs: Counter[str] = Counter()
        self._catalogues: Counter[str] = Counter()
        self._models: Counter[str] = Counter()
        self._known = set[str]()

    def add(self, entry: LogEntry) -> None:
        """Look up what an entry names."""
        record = entry.record
        if isinstance(record, DecisionRecord):
            self._look(record.spec, record.catalogue)
        elif isinstance(record, SpecRecord):
            self._look(spec=record.digest)
        elif isinstance(record, CatalogueRecord):
            self._look(catalogue=record.digest)
        elif isinstance(record, WarmStartRecord):
            self._look(model=record.digest)

    def findings(self) -> Iterator[Finding]:
        """One: failure for anything that is gone."""
        listed = self._stored.listed()
        snapshots = sorted(self._gone(listed))
        gone = [*self._specs, *self._catalogues, *self._models, *snapshots]
        entries = self._specs.total() + self._catalogues.total() + self._models.total()
        message = (
            f"all {len(self._known)} specs, catalogues and trained models that the log names are"
            " stored,"
            f" and all {len(listed)} snapshots that are listed"
        )
        if gone:
            message = (
                f"{len(self._specs)} specs, {len(self._catalogues)} catalogues,"
                f" {len(self._models)} trained models and"
                f" {len(snapshots)} listed snapshots"
                f" are gone or damaged; {entries:,} entries name them; the first is {gone[0]}"
            )
        yield found(
            "gaps",
            "failure" if gone else "ok",
            message,
            cause="a blob was deleted or evicted (a Redis with a maxmemory policy other than"
            " noeviction), or damaged",
            action="restore the blob under its digest from a backup or the archive; set"
            " maxmemory-policy noeviction",
            figures={
                "specs_gone": len(self._specs),
                "catalogues_gone": len(self._catalogues),
                "models_gone": len(self._models),
                "snapshots_gone": len(snapshots),
                "entries": entries,
                "first": gone[0] if gone else None,
            },
        )

    def _look(
        self, spec: str | None = None, catalogue: str | None = None, model: str | None = None
    ) -> None:
        """What is stored as written, and is none of what it should be, is no gap: whoever folds the log refuses it."""
        self._known.update(name for name in (spec, catalogue, model) if name is not None)
        if spec is not None and self._stored.spec(spec) is None and not self._stored.holds(spec):
            self._specs[spec] += 1
        if (
            catalogue is not None
            and self._stored.catalogue(catalogue) is None
            and not self._stored.holds(catalogue)
        ):
            self._catalogues[catalogue] += 1
        if model is not None and not self._stored.holds(model):
            self._models[model] += 1

    def _gone(self, listed: Collection[str]) -> set[str]:
        """What is listed and not there, look after look: between list and blob a live policy may have moved on.

        A snapshot leaves the list before its blob goes, so one that is gone and still listed
        afterwards is missing.
        """
        gone = set(listed)
        for _ in range(LOOKS):
            gone = {name for name in gone if not self._loads(name)}
            if not gone:
                break
            gone &= set(self._stored.listed())
        return gone

    def _loads(self, name: str) -> bool:
        try:
            return self._stored.snapshot(name) is not None
        except BanditloopError:
            return False


class Derivations:
    """Derives PMFs again, byte for byte, from the snapshot, spec and catalogue that the record names.

    Of each snapshot that is still stored, the first PER_SNAPSHOT decisions; at most ``limit``
    together. ``salts`` also derive a mixture's credits. ``build``: this machine's, to compare with
    the one the log was learned on.
    """

    PER_SNAPSHOT = 100
    LOADED = 8

    def __init__(
        self,
        stored: Stored,
        *,
        salts: Collection[bytes],
        build: Mapping[str, str] | None,
        limit: int,
    ) -> None:
        self._stored = stored
        self._salts = salts
        self._build = build
        self._limit = limit
        self._log_build: dict[str, str] | None = None
        self._loaded: OrderedDict[tuple[str, str], _Loaded] = OrderedDict()
        self._decisions = self._checked = self._same = self._close = 0
        self._first: str | None = None

    def add(self, entry: LogEntry) -> None:
        """Derive a decision's PMF again, if it is one of the sample."""
        record = entry.record
        if isinstance(record, BuildRecord):
            self._log_build = record.build
        if not isinstance(record, DecisionRecord):
            return
        self._decisions += 1
        if self._checked >= self._limit:
            return
        loaded = self._load(record)
        catalogue = self._stored.catalogue(record.catalogue)
        if loaded.ranker is None or catalogue is None or loaded.checked >= self.PER_SNAPSHOT:
            return
        loaded.checked += 1
        self._checked += 1
        salt = next((each for each in self._salts if redraws(record, each)), None)
        difference = _difference(loaded.ranker, catalogue, record, salt)
        if difference == 0.0:
            self._same += 1
        elif difference <= CLOSE:
            self._close += 1
        else:
            self._first = self._first or entry.id

    def findings(self) -> Iterator[Finding]:
        """One: of the decisions that could be checked, how many derive again."""
        if not self._checked:
            yield nothing(
                "derivations",
                f"of {self._decisions:,} decisions none names a snapshot, spec and catalogue that"
                " are still stored",
                action="run the doctor on the live log while decisions are made, or soon after: the"
                " newest 20 snapshots"
                " are kept, and those of checkpoints; an archive holds none",
                figures={"decisions": self._decisions, "checked": 0},
            )
            return
        far = self._checked - self._same - self._close
        other = (
            self._build is not None
            and self._log_build is not None
            and self._log_build != self._build
        )
        severity: Severity = "ok"
        if far and not (other and far <= OTHER_BUILD * self._checked):
            severity = "failure"
        elif far or self._close:
            severity = "warning"
        message = (
            f"{self._same:,} of {self._checked:,} PMFs derive again byte for byte from their"
            f" snapshot, {self._close:,}"
            f" more within {CLOSE:g}; of {self._decisions:,} decisions the others name snapshots"
            " no longer stored, or"
            " are beyond the sample"
        )
        cause = "the decision was not made by the snapshot, spec or catalogue that it names, or its PMF was changed"
        action = "compare the version of replicas and learner; do not evaluate from these decisions"
        if severity == "warning":
            cause = (
                "the log was written on another processor or with other library versions than these"
            )
            action = "to compare byte for byte, run the doctor on a machine and versions like the replicas'"
        yield found(
            "derivations",
            severity,
            message,
            cause=cause,
            action=action,
            figures={
                "decisions": self._decisions,
                "checked": self._checked,
                "same_bytes": self._same,
                "close": self._close,
                "differ": far,
                "other_build": str(other).lower(),
                "first_differing": self._first,
            },
        )

    def _load(self, record: DecisionRecord) -> "_Loaded":
        key = (record.snapshot_id, record.spec)
        if key in self._loaded:
            self._loaded.move_to_end(key)
            return self._loaded[key]
        loaded = self._loaded[key] = _Loaded(self._ranker(record))
        if len(self._loaded) > self.LOADED:
            self._loaded.popitem(last=False)
        return loaded

    def _ranker(self, record: DecisionRecord) -> Ranker | None:
        spec = self._stored.spec(record.spec)
        try:
            snapshot = self._stored.snapshot(record.snapshot_id)
            if spec is None or snapshot is None:
                return None
            ranker = Ranker(spec, (), salt=b"")
            ranker.serve(record.snapshot_id, snapshot, Catalogue())
        except BanditloopError:
            return None
        return ranker


@dataclass(slots=True, eq=False)
class _Loaded:
    ranker: Ranker | None
    checked: int = 0


def _difference(
    ranker: Ranker, catalogue: Catalogue, record: DecisionRecord, salt: bytes | None
) -> float:
    """The largest difference of a probability; infinite if the credit is another."""
    serving, holdout = ranker.serving, ranker.spec.holdout
    if serving is None:
        return float("inf")
    policy: Policy = FixedPolicy(holdout.policy) if record.holdout and holdout else serving.policy
    context, actions = featurise_record(ranker.spec, catalogue, record)
    pmfs = _derive(policy, context, actions, record.chosen)
    difference = float(np.abs(pmfs - record.pmfs()).max())
    if salt is not None and record.credit is not None and isinstance(policy, Mixture):
        decision = Decision(record.event_id, tuple(record.chosen), pmfs)
        credit = policy.credit(context, actions, decision, salt=salt, name=record.policy)
        if credit is None or (credit.sources, credit.credited) != (
            record.credit.sources,
            record.credit.credited,
        ):
            return float("inf")
        difference = max(difference, float(np.abs(credit.pmfs() - record.credit.pmfs()).max()))
    return difference


def _derive(policy: Policy, context: Context, actions: ActionSet, chosen: list[int]) -> Float64:
    """The PMF of each slot, given the actions chosen before it."""
    pmfs = np.zeros((len(chosen), len(actions)))
    for slot in range(len(chosen)):
        remaining = np.delete(np.arange(len(actions)), chosen[:slot])
        left = actions if slot == 0 else actions.take(remaining)
        pmfs[slot, remaining] = policy.pmf(context, left)
    return pmfs


def _decoded(data: bytes | None, name: str, decode: Callable[[bytes], Kind]) -> Kind | None:
    if data is None or digest(data) != name:
        return None
    try:
        return decode(data)
    except BanditloopError:
        return None
