"""The state of a fold in a checkpoint, and what a fold asks of the log behind it."""

import contextlib
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec

from bandits.errors import CodecError, NewerBuildError
from bandits.log.codec import MALFORMED
from bandits.log.join_state import EarlierJoinState, JoinState
from bandits.log.older_decisions import Opened
from bandits.log.positions import log_order
from bandits.log.records import LogEntry, MergeInput
from bandits.log.trends import Trends, TrendState
from bandits.log.versions import FOLD, fold_version
from policies.fold.known_prior import KnownPrior
from policies.rules.quotas.quota import Control


class Past(Protocol):
    """The log behind a fold.

    ``aside``: a folder in which files of a process's own find room, which nobody else sees; None:
    the one for temporary files.
    """

    aside: str | None

    def entries(self, after: str, through: str) -> Iterable[LogEntry]:
        """Yield some of the log's entries, in its order.

        Args:
            after: entries past this position; "0-0" is before the first.
            through: up to this one, included.
        """
        ...

    def behind(self, after: str, through: str) -> Iterable[LogEntry]:
        """Yield entries as ``entries`` does, for whoever takes them one by one, over a long time.

        Args:
            after: entries past this position.
            through: up to this one, included.
        """
        ...

    def taught(self, after: str, through: str) -> Iterable[LogEntry]:
        """Yield decisions as ``behind`` does, and other entries or none.

        For whoever learns from chosen actions and asks for no propensity: what else they say of
        actions that were not chosen may be missing.

        Args:
            after: entries past this position.
            through: up to this one, included.
        """
        ...

    def opened(self, after: str, through: str) -> Iterable[Opened]:
        """Yield of each entry what a join that goes through the log again wants to know.

        Args:
            after: entries past this position.
            through: up to this one, included.
        """
        ...

    def checkpoint(self, position: str) -> "FoldState | None":
        """Return the newest checkpoint at or before a position; None: fold from the start."""
        ...


class FoldState(msgspec.Struct, frozen=True, array_like=True):
    """A checkpoint: the state of a fold, but for the open windows, which the log has."""

    position: str
    learned: int
    spec: str | None
    salt_id: str | None
    catalogue: str
    artifact: str | None
    build: dict[str, str]
    builds: list[dict[str, str]]
    pinned: str | None
    learner: bytes | None
    join: JoinState
    refused_rollbacks: int = 0
    refused_warm_starts: int = 0

    @property
    def needed(self) -> str:
        """A resume reads the log from here, this entry included; what is older is in this state."""
        inherited = None if self.join.inherited is None else self.join.inherited.needed()
        positions = [each for each in (self.join.oldest, inherited) if each is not None]
        return min([*positions, self.position], key=log_order)

    @property
    def is_pure(self) -> bool:
        """Whether it follows from the log alone: no earlier build's checkpoint has a part in it."""
        return self.join.inherited is None


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """An entry that was refused, and why; a decision is refused when it would be learned."""

    position: str
    kind: str
    reason: str


class Cut(msgspec.Struct, frozen=True, array_like=True):
    """A partition's gift to merge ``number``: the bytes of its model at ``position``."""

    number: int
    position: str
    learned: int
    model: bytes


class Merging(msgspec.Struct, frozen=True, array_like=True):
    """Where a partition of several stands; see ``PartitionFold``."""

    number: int
    inputs: list[MergeInput | None]
    base: bytes | None
    cut: Cut | None
    rollback: str | None


class PartitionState(FoldState, frozen=True, array_like=True):
    """A checkpoint of a policy that has several partitions."""

    merging: Merging | None = None


class PriorState(PartitionState, frozen=True, array_like=True):
    """A checkpoint of a log that has a prior; others are written as if there were no such thing."""

    prior: KnownPrior | None = None


class TrendingState(PriorState, frozen=True, array_like=True):
    """A checkpoint of a log whose spec has a source of what is in demand now."""

    trends: list[TrendState] | None = None


class Relearned(msgspec.Struct, frozen=True, array_like=True):
    """Whose signals weigh the rewards of decisions that were made with other specs.

    Attributes:
        by: the digest of the spec whose signals do.
        specs: those of the decisions, by digest.
    """

    by: str
    specs: list[str]


class SignalledState(TrendingState, frozen=True, array_like=True):
    """A checkpoint of a log whose rewards name their signals.

    ``signals``: how many counted of each, and the sum of their values. ``relearned``: whose signals
    count for decisions of specs before. ``is_mixed``: whether some of what the model has learned
    was weighed otherwise than the spec in force says.
    """

    signals: dict[str, tuple[int, float]] | None = None
    relearned: Relearned | None = None
    is_mixed: bool = False


class ControlledState(SignalledState, frozen=True, array_like=True):
    """A checkpoint of a log whose quotas had a controller. ``control``: the state of it."""

    control: Control | None = None


def with_control(state: FoldState, control: Control) -> ControlledState:
    """Return a checkpoint's state with that of the quotas' controller."""
    later = {"merging", "prior", "trends", "signals", "relearned"}
    fields = {**dict.fromkeys(later), "is_mixed": False, **msgspec.structs.asdict(state)}
    return ControlledState(**{**fields, "control": control})


def with_signals(
    state: FoldState,
    signals: dict[str, tuple[int, float]],
    relearned: Relearned | None,
    *,
    is_mixed: bool,
) -> FoldState:
    """Return a checkpoint's state with what is known of signals, if anything is.

    Args:
        state: the rest.
        signals: their counts.
        relearned: see SignalledState.
        is_mixed: likewise.
    """
    if not (signals or relearned or is_mixed):
        return state
    fields = {"merging": None, "prior": None, "trends": None, **msgspec.structs.asdict(state)}
    counts = dict(sorted(signals.items()))
    own = {"signals": counts, "relearned": relearned, "is_mixed": is_mixed}
    return SignalledState(**{**fields, **own})


def with_trends(state: FoldState, trends: Iterable[Trends]) -> TrendingState:
    """Return a checkpoint's state with the counts of items' rewards."""
    fields = {"merging": None, "prior": None, **msgspec.structs.asdict(state)}
    return TrendingState(**{**fields, "trends": [each.state for each in trends]})


def with_prior(state: FoldState, prior: KnownPrior) -> PriorState:
    """Return a checkpoint's state with the prior of its log."""
    fields = msgspec.structs.asdict(state)
    return PriorState(**{"merging": None, **fields, "prior": prior.stored})


_state = msgspec.msgpack.Decoder(ControlledState)
EARLIER: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(
    msgspec.defstruct(
        "EarlierState",
        [
            (each.name, EarlierJoinState if each.name == "join" else each.type)
            if each.required
            else (each.name, each.type, each.default)
            for each in msgspec.structs.fields(PartitionState)
        ],
        array_like=True,
    )
)
"""Decodes the checkpoint of an earlier build, which kept every open window in it."""


def decode_state(data: bytes) -> PartitionState:
    """Return the state in a checkpoint's blob, also in one of an earlier build.

    Raises:
        CodecError: it is not one.
    """
    try:
        return _state.decode(data)
    except MALFORMED as error:
        malformed = error

    try:
        fields = msgspec.structs.asdict(EARLIER.decode(data))
    except MALFORMED:
        raise CodecError(f"not a checkpoint: {malformed}", "checkpoint") from malformed

    # A version that this build does not know is found out when a fold resumes.
    version = FOLD
    with contextlib.suppress(NewerBuildError):
        version = fold_version(fields["build"])
    fields["join"] = fields["join"].inherited(fields["position"], version)
    return PartitionState(**fields)
