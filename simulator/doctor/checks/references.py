"""The specs, catalogues, trained models and snapshots that the log names are still stored."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from bandits.errors import BanditloopError, MissingBlobError
from bandits.log.codec import digest
from bandits.log.records import (
    CatalogueRecord,
    DecisionRecord,
    LogEntry,
    PriorRecord,
    SpecRecord,
    WarmStartRecord,
)
from bandits.types import Snapshot
from policies.items.catalogue import Catalogue
from policies.items.past import ItemsPast
from policies.items.timeline import position_of
from policies.spec import PolicySpec, decode_spec
from simulator.doctor.checks.findings import Finding, make_finding
from simulator.logs.archive.item_history import ItemAt, ItemHistory

Kind = TypeVar("Kind")

LOOKS = 3
"""Times to look for a snapshot before it is called gone."""


@dataclass(slots=True, eq=False)
class ReferencedBlobs:
    """The blobs and snapshots kept beside a log, read at most once each.

    ``blob`` gives the bytes under a digest, None when they are gone. ``snapshot`` gives the one of
    an id, None when it has been forgotten, as all but the newest are; it raises SnapshotError when
    the bytes are not those that the id names. ``listed`` gives the snapshots that should be there
    when it is asked: those of a live policy move on. ``items`` has the versions of the items.
    """

    blob: Callable[[str], bytes | None] = lambda _: None
    snapshot: Callable[[str], Snapshot | None] = lambda _: None
    listed: Callable[[], Collection[str]] = frozenset
    items: ItemsPast = field(default_factory=ItemsPast)
    _held: dict[str, bool] = field(default_factory=dict)
    _specs: dict[str, PolicySpec | None] = field(default_factory=dict)
    _catalogues: dict[str, Catalogue | None] = field(
        default_factory=lambda: {Catalogue().digest: Catalogue()}
    )
    # Of the versions of a log of items only the one that was asked for last is kept.
    _version: str = ""
    _of_version: Catalogue | None = None
    _history: ItemHistory | None = None

    def __post_init__(self) -> None:
        self.items.asked_by(lambda: [self._version])

    def holds(self, name: str) -> bool:
        """Return whether the bytes of a digest are there, whatever they are."""
        if name not in self._held:
            data = self.blob(name)
            self._held[name] = data is not None and digest(data) == name
        return self._held[name]

    def spec(self, name: str) -> PolicySpec | None:
        """Return the spec of a digest; None when it is gone or is not what its digest says."""
        if name not in self._specs:
            self._specs[name] = _decoded(self.blob(name), name, decode_spec)
        return self._specs[name]

    def catalogue(self, name: str) -> Catalogue | None:
        """Return the catalogue of a version; None when it is gone or is not what its name says.

        It is to be used before the one of another version is asked for.
        """
        if position_of(name) is not None:
            if name != self._version:
                self._version = name
                self.items.tidy()
                self._of_version = self._catalogue(name)
            return self._of_version
        if name not in self._catalogues:
            self._catalogues[name] = self._catalogue(name)
        return self._catalogues[name]

    def items_at(self, name: str) -> ItemAt | None:
        """Return what gives the items of a version, with all fields; None when it is gone."""
        if self._history is None:
            self._history = ItemHistory(self.items.log, self._demanded)
        return self._history.at(name)

    def _catalogue(self, name: str) -> Catalogue | None:
        try:
            return self.items.catalogue(name, self._demanded)
        except BanditloopError:
            return None

    def _demanded(self, name: str) -> bytes:
        data = self.blob(name)
        if data is None:
            raise MissingBlobError(f"blob {name} is gone", "digest")
        return data


class MissingBlobs:
    """Finds what the log names and is stored no more: without it the log cannot be replayed."""

    def __init__(self, stored: ReferencedBlobs) -> None:
        self._stored = stored
        self._specs: Counter[str] = Counter()
        self._catalogues: Counter[str] = Counter()
        self._models: Counter[str] = Counter()
        self._named = set[str]()

    def add(self, entry: LogEntry) -> None:
        """Look up what an entry names."""
        record = entry.record
        if isinstance(record, DecisionRecord):
            self._look_up(record.spec, record.catalogue)
        elif isinstance(record, SpecRecord):
            self._look_up(spec=record.digest)
        elif isinstance(record, CatalogueRecord):
            self._look_up(catalogue=record.digest)
        elif isinstance(record, WarmStartRecord | PriorRecord):
            self._look_up(model=record.digest)

    def findings(self) -> Iterator[Finding]:
        """Yield one: a failure for anything that is gone."""
        listed = self._stored.listed()
        snapshots = sorted(self._gone(listed))
        gone = [*self._specs, *self._catalogues, *self._models, *snapshots]
        entries = self._specs.total() + self._catalogues.total() + self._models.total()

        message = (
            f"all {len(self._named)} specs, catalogues and trained models that the log names are"
            f" stored, and all {len(listed)} snapshots that are listed"
        )
        if gone:
            message = (
                f"{len(self._specs)} specs, {len(self._catalogues)} catalogues,"
                f" {len(self._models)} trained models and {len(snapshots)} listed snapshots"
                f" are gone or damaged; {entries:,} entries name them; the first is {gone[0]}"
            )

        yield make_finding(
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

    def _look_up(
        self, spec: str | None = None, catalogue: str | None = None, model: str | None = None
    ) -> None:
        """Count the digests under which nothing is stored.

        Bytes that are stored as written and decode as nothing are not missing: whoever folds the
        log refuses them.
        """
        self._named.update(name for name in (spec, catalogue, model) if name is not None)

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
        """Return the snapshots that stay listed and cannot be loaded, look after look.

        Between the list and the blob a live policy may have moved on. A snapshot leaves the list
        before its blob goes, so one that is gone and still listed afterwards is missing.
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


def _decoded(data: bytes | None, name: str, decode: Callable[[bytes], Kind]) -> Kind | None:
    """Return what the bytes hold; None when they are not those of the digest, or do not decode."""
    if data is None or digest(data) != name:
        return None
    try:
        return decode(data)
    except BanditloopError:
        return None
