"""The schema of the log: every kind of entry there is. A record is what one entry of the log says.

Large things (a spec, a catalogue, a checkpoint) are blobs named by their digest. Arrays are
little-endian bytes.
"""

import struct
from collections.abc import Collection, Sequence

import msgspec
import numpy as np

from bandits.page import LoggedPage
from bandits.types import Float32, Float64
from bandits.values import FeatureMap

_DOUBLE = struct.Struct("<d")
MAX_REMOVED = 200
"""Ids of what a rule removed that a record holds; of more it holds a count."""


class Record(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Base of all records.

    Stored as a msgpack array headed by the kind's name; fields are only ever appended.

    A record refers to nothing that could refer back, so the collector of cycles is spared it.
    """


class Credit(msgspec.Struct, frozen=True, array_like=True):
    """Which source a mixture credits each slot's item to, drawn from P(source | item).

    Attributes:
        sources: the S sources, by name.
        pmf: float64[slots, S], the probability of each source before the item was drawn.
        credited: per slot, the index of the source.
    """

    sources: list[str]
    pmf: bytes
    credited: list[int]

    def pmfs(self) -> Float64:
        """Return the PMFs over sources, float64[slots, S]."""
        return np.frombuffer(self.pmf, "<f8").reshape(len(self.credited), len(self.sources))


class Removed(msgspec.Struct, frozen=True, array_like=True):
    """What a rule took from what a decision would have chosen from, as far as that is known.

    Attributes:
        ids: the first actions of which it is known, MAX_REMOVED at most.
        count: how many there were.
    """

    ids: list[str]
    count: int


class Placed(msgspec.Struct, frozen=True, array_like=True):
    """An item that stood in a slot of the page by a placement, and not by a draw.

    Attributes:
        slot: which of the page, from 0.
        action_id: the item.
    """

    slot: int
    action_id: str


class Unplaced(msgspec.Struct, frozen=True, array_like=True):
    """An item that a placement was to put on the page, and that could not stand there.

    Attributes:
        slot: which of the page, from 0.
        action_id: the item.
        reason: ``unavailable`` (not offered now), ``filtered``, ``excluded`` (by the request, or
            held back by ``repeat``), ``not_sent`` (the request brings its actions, and not this
            one), ``twice`` (it stands in another slot) or ``taken`` (another item, of a placement
            before, stands in this one).
    """

    slot: int
    action_id: str
    reason: str


class Ruled(msgspec.Struct, frozen=True, array_like=True):
    """What a decision's rules depended on, beside its spec, its catalogue and its context.

    Attributes:
        filter: the request's own.
        now_ms: the moment, in ms since 1970, where a rule looked at the time.
        did: what the profile said, where a rule looked at it: by what was done, with which items.
        removed: what was taken away, by the rule: ``filter.where`` for the policy's filter, and
            ``filter`` for what only the request's refuses.
        boosts: float32[K], what was added to the score of each action before exploration; empty for
            nothing.
        control: the log's entry of the controller's state that it was made under.
        placed: what stood on the page without a draw.
        short: why there are fewer slots than were asked for.
        unplaced: what was to stand on the page without a draw, and could not.
        page: float16[n, K], what the page's rules added to the score of each action in the last n
            slots, given those before, NaN for one that they did not let follow; empty for nothing.
    """

    filter: str | None = None
    now_ms: int | None = None
    did: dict[str, list[str]] | None = None
    removed: dict[str, Removed] = msgspec.field(default_factory=dict)
    boosts: bytes = b""
    control: str | None = None
    placed: list[Placed] = msgspec.field(default_factory=list)
    short: str | None = None
    unplaced: list[Unplaced] = msgspec.field(default_factory=list)
    page: bytes = b""

    def offsets(self) -> Float64 | None:
        """Return the boosts as float64[K]; None if nothing was added."""
        return np.frombuffer(self.boosts, "<f4").astype(np.float64) if self.boosts else None


NO_RULES = Ruled()
"""What is not written: rules that depended on nothing else."""


SERVED = ("first", "request", "drawn", "source", "holdout")
"""Whose choice an apprentice's decision serves; see Apprentice."""


class Apprentice(msgspec.Struct, frozen=True, array_like=True):
    """What a policy would have chosen that is an apprentice, where another choice was served.

    Attributes:
        served: whose choice was served: ``first`` (the first of the actions), ``request`` (the one
            that the request names), ``drawn`` (a draw from the probabilities that the request
            gives), ``source`` (the best of the source that the spec calls ``baseline``) or
            ``holdout``.
        pmf: float64[slots, K], what each slot of the policy's own choice was drawn from.
        chosen: per slot, the index of the action that the policy would have chosen.
    """

    served: str
    pmf: bytes
    chosen: list[int]


class DecisionRecord(Record, frozen=True, tag="decision"):
    """A decision, with everything needed to rebuild the feature matrix its policy saw.

    Attributes:
        event_id: the decision's name, which its rewards carry.
        policy: the policy's name.
        spec: the digest of the spec it was made with.
        snapshot_id: the snapshot that scored it.
        catalogue: the version of the catalogue it was made from.
        context: the request's features.
        action_ids: the K actions, in their order.
        features: per action, inline features or None; the whole is None when all come from the
            catalogue.
        scores: by source, float32[K], NaN where the source did not propose the action.
        pmf: float64[slots, K].
        chosen: per slot, the index of its action; a slot that holds a placed item is none of these.
        user: the user's keyed pseudonym.
        deferred: whether it is learned only after an activation.
        holdout: whether the spec's holdout policy had to choose.
        credit: the sources that a mixture credits the slots' items to.
        unserved: whether the holdout policy had no candidates for some slot, which was then chosen
            uniformly; such a decision is not part of the control.
        failed: by source, why it gave no scores, of those that failed.
        artifact: the version of the artifact whose sources were asked; None if none was.
        profile: the version of what was known of the user, that is, its digest; "" where not all of
            it could be read; None where the policy does not ask.
        rules: what its rules depended on; None: on nothing else, or there are none.
        apprentice: what the policy would have chosen, where it is an apprentice: then ``pmf`` and
            ``chosen`` are of what was served.
    """

    event_id: str
    policy: str
    spec: str
    snapshot_id: str
    catalogue: str
    context: FeatureMap
    action_ids: list[str]
    features: list[FeatureMap | None] | None
    scores: dict[str, bytes]
    pmf: bytes
    chosen: list[int]
    user: str | None = None
    deferred: bool = False
    holdout: bool = False
    credit: Credit | None = None
    unserved: bool = False
    failed: dict[str, str] | None = None
    artifact: str | None = None
    profile: str | None = None
    rules: Ruled | None = None
    apprentice: Apprentice | None = None

    @property
    def control(self) -> bool:
        """Whether it was chosen by the spec's holdout policy, and by nothing else."""
        return self.holdout and not self.unserved

    @property
    def boosts(self) -> Float64 | None:
        """What rules added to the score of each action, float64[K]; None: nothing."""
        return None if self.rules is None else self.rules.offsets()

    @property
    def page(self) -> LoggedPage | None:
        """What the page's rules said of each slot; None: nothing, or there are none."""
        if self.rules is None or not self.rules.page:
            return None
        return LoggedPage(self.rules.page, len(self.chosen), len(self.action_ids))

    @property
    def slots(self) -> int:
        """How many slots were filled by a draw."""
        return len(self.chosen)

    @property
    def placed(self) -> Sequence[Placed]:
        """What stood on the page without a draw."""
        return () if self.rules is None else self.rules.placed

    def shown(self) -> list[str]:
        """Return what stood on the page: what was chosen, slot by slot, then what was placed."""
        shown = [self.action_ids[index] for index in self.chosen]
        return shown + [each.action_id for each in self.placed] if self.placed else shown

    def placed_in(self, slot: int) -> str:
        """Return what was placed in a slot of the page."""
        return next(each.action_id for each in self.placed if each.slot == slot)

    def page_slots(self) -> Sequence[int]:
        """Return of each slot that was drawn, in order, which of the page it is."""
        return slots_between([each.slot for each in self.placed], len(self.chosen))

    def pmfs(self) -> Float64:
        """Return the PMF that each slot was drawn from, float64[slots, K]."""
        return np.frombuffer(self.pmf, "<f8").reshape(len(self.chosen), len(self.action_ids))

    def propensity(self, slot: int) -> float:
        """Return the probability of a slot's action when it was chosen, without an array."""
        at = 8 * (slot * len(self.action_ids) + self.chosen[slot])
        propensity: float = _DOUBLE.unpack_from(self.pmf, at)[0]
        return propensity

    def own(self) -> "DecisionRecord":
        """Return the decision as the policy would have made it; the same where it did."""
        if self.apprentice is None:
            return self
        pmf, chosen = self.apprentice.pmf, self.apprentice.chosen
        return msgspec.structs.replace(
            self, pmf=pmf, chosen=chosen, holdout=False, unserved=False, apprentice=None
        )

    def source_scores(self) -> dict[str, Float32]:
        """Return the scores by source, float32[K]."""
        return {source: np.frombuffer(data, "<f4") for source, data in self.scores.items()}


def slots_between(placed: Collection[int], count: int) -> Sequence[int]:
    """Return which of a page's slots hold what was drawn, in order.

    Args:
        placed: those that hold something else.
        count: how many were drawn.
    """
    if not placed:
        return range(count)
    return [slot for slot in range(count + len(placed)) if slot not in placed][:count]


class ActivationRecord(Record, frozen=True, tag="activation"):
    """A deferred decision was acted upon: it may be learned.

    Attributes:
        event_id: the decision.
    """

    event_id: str


class RewardRecord(Record, frozen=True, tag="reward"):
    """A reward event.

    Attributes:
        event_id: the decision that is rewarded.
        value: the reward; higher is better.
        reward_id: the reward's name, so that it counts once; without one, its slot is its name.
        slot: the slot that is rewarded; None means the action's, or 0.
        action_id: the action that is rewarded; it must have been chosen.
        signal: what kind of reward it is, as ``click`` or ``purchase``; the spec of its decision
            weighs it. Without a reward_id its slot and its signal are its name.
    """

    event_id: str
    value: float
    reward_id: str | None = None
    slot: int | None = None
    action_id: str | None = None
    signal: str | None = None


class TickRecord(Record, frozen=True, tag="tick"):
    """Time passed in a quiet log."""


class SpecRecord(Record, frozen=True, tag="spec"):
    """From here on the policy is described by this spec.

    Attributes:
        digest: the digest of the spec.
        salt_id: which secret salt draws the policy's uniforms.
    """

    digest: str
    salt_id: str


class CatalogueRecord(Record, frozen=True, tag="catalogue"):
    """From here on this catalogue is the newest.

    Attributes:
        digest: the digest of the catalogue.
    """

    digest: str


class ArtifactRecord(Record, frozen=True, tag="artifact"):
    """From here on the sources are those of this artifact version.

    Attributes:
        version: the artifact's version.
    """

    version: str


class BuildRecord(Record, frozen=True, tag="build"):
    """The learner that reads on from here runs on this architecture with these library versions.

    Attributes:
        build: versions by name; its ``fold`` is the version by which the entries from here on are
            folded, whoever folds them (see versions.py).
    """

    build: dict[str, str]


class CheckpointRecord(Record, frozen=True, tag="checkpoint"):
    """Whoever folds the log serialises its state here, and goes on from those bytes."""


class PinRecord(Record, frozen=True, tag="pin"):
    """Replicas serve this snapshot while learning goes on.

    A new spec or a rollback unpins, too.

    Attributes:
        snapshot_id: the snapshot; None unpins.
    """

    snapshot_id: str | None


class RollbackRecord(Record, frozen=True, tag="rollback"):
    """The learner restores what it had learned at a snapshot; what came after is not relearned.

    Attributes:
        snapshot_id: the snapshot.
        position: the snapshot's position in the log.
        artifact: the artifact version that the snapshot was served with, which serves again; None:
            the one in force stays.
    """

    snapshot_id: str
    position: str
    artifact: str | None = None


class WarmStartRecord(Record, frozen=True, tag="warm_start"):
    """The learner goes on from a model that was trained on another log, or anew on this one.

    Attributes:
        digest: the digest of the blob that holds the model.
        through: up to where the model has learned this log, under the weights of the spec in force;
            the blob is then a checkpoint. None: it knows nothing of this log.
    """

    digest: str
    through: str | None = None


class PriorRecord(Record, frozen=True, tag="prior"):
    """A model that has learned nothing is taught these rows: the one in force, and each to come.

    A model that has learned something stays as it is.

    Attributes:
        digest: the digest of the blob that holds the rows.
        strength: how many interactions each row is worth, unless the spec says it.
        catalogue: the version of the items whose features the rows take; empty: the newest
            catalogue of the policy's own log.
    """

    digest: str
    strength: float
    catalogue: str = ""


class MergeInput(msgspec.Struct, frozen=True, array_like=True):
    """The model that one partition gave to a merge.

    Attributes:
        number: the number of the cut, so of the first merge it was given to.
        position: where in its own log the partition's model stood.
        digest: the digest of the model's bytes.
        learned: the interactions that its log had taught by then.
    """

    number: int
    position: str
    digest: str
    learned: int


class CutRecord(Record, frozen=True, tag="cut"):
    """Whoever folds this partition's log gives the model as of here to a merge.

    Attributes:
        number: the number of the merge.
    """

    number: int


class MergeRecord(Record, frozen=True, tag="merge"):
    """A merge of a policy's partitions: the log of partition 0 decides it, the others repeat it.

    Attributes:
        number: the number of the merge.
        inputs: by partition, what it gave, now or to an earlier merge; None when it has given
            nothing.
        digest: the digest of the merged model.
        model: the ``model_digest`` of the spec that the model is for.
        restores: whether it goes back to where these inputs were merged before; what was learned
            since is dropped.
    """

    number: int
    inputs: list[MergeInput | None]
    digest: str
    model: str
    restores: bool = False


class ItemChange(msgspec.Struct, frozen=True, array_like=True):
    """One change of what there is to offer.

    Attributes:
        op: ``put`` (the item is this, whether or not there was one), ``patch`` (some of its fields
            are these) or ``delete``.
        id: the item.
        fields: JSON: of a put the item, of a patch what changes; empty for a delete.
    """

    op: str
    id: str
    fields: bytes = b""


class ItemsRecord(Record, frozen=True, tag="items"):
    """Items change, in this order, at once; an entry of a log of items.

    Attributes:
        changes: at least one.
    """

    changes: list[ItemChange]


class ItemsBaseRecord(Record, frozen=True, tag="items_base"):
    """All items there are; an entry of a log of items.

    Attributes:
        digest: the digest of the blob that holds them.
        version: None: they replace what there was. Else they are what the entries before have made,
            at this version, so that whoever reads the log may begin here.
    """

    digest: str
    version: str | None = None


class ActivityRecord(Record, frozen=True, tag="activity"):
    """A user did something outside of any decision; an entry of a log of activity.

    Attributes:
        user: the user's pseudonym.
        item: what it was done with.
        event_type: what was done, as ``view`` or ``purchase``.
        value: how much, where that means something: a rating, a price.
        time_ms: when, in milliseconds since 1970; None: when the entry was made. It orders what is
            in a profile, and nothing else.
        id: the caller's name of it, or the server's, by which it counts once.
    """

    user: str
    item: str
    event_type: str
    value: float | None = None
    time_ms: int | None = None
    id: str | None = None


class MergeUsersRecord(Record, frozen=True, tag="merge_users"):
    """Two pseudonyms are of one person; an entry of a log of activity.

    Attributes:
        user: the pseudonym that nothing is logged under from here on.
        into: the one that everything is logged under.
    """

    user: str
    into: str


class ErasureRecord(Record, frozen=True, tag="erasure"):
    """Nothing links this pseudonym to a person any more, and nothing is known of it.

    An entry of a log of activity, and of each log of the policies that share it.

    Attributes:
        user: the pseudonym.
        erasure: the name of the job that did it.
    """

    user: str
    erasure: str


class RootRecord(Record, frozen=True, tag="root"):
    """What the log says before a checkpoint is no longer kept: it begins with that state.

    Attributes:
        position: the checkpoint's.
        digest: the digest of the state there, with which whoever folds the log begins.
        profiles: that of a file in the log's archive, which has what the log says of its users up
            to there; None: it says nothing of them.
        given: where a policy has several partitions, the digest of the model that this one had
            given to the merge there, which its archive has; None: there is none.
    """

    position: str
    digest: str
    profiles: str | None = None
    given: str | None = None


class ControlRecord(Record, frozen=True, tag="control"):
    """From here on the quotas add this to the scores of their items.

    Attributes:
        prices: by the name of a quota or of a group, what is added; one that is not there adds
            nothing.
    """

    prices: dict[str, float]


class RerankedRecord(Record, frozen=True, tag="reranked"):
    """A decision under an event_id that had answered another request: shown, and never learned.

    Attributes:
        event_id: the one that both have; its rewards are those of the first.
        decision: the bytes of the decision's record.
    """

    event_id: str
    decision: bytes


LogRecord = (
    DecisionRecord
    | ActivationRecord
    | RewardRecord
    | TickRecord
    | SpecRecord
    | CatalogueRecord
    | ArtifactRecord
    | BuildRecord
    | CheckpointRecord
    | PinRecord
    | RollbackRecord
    | WarmStartRecord
    | PriorRecord
    | CutRecord
    | MergeRecord
    | ItemsRecord
    | ItemsBaseRecord
    | ActivityRecord
    | MergeUsersRecord
    | ErasureRecord
    | RootRecord
    | ControlRecord
    | RerankedRecord
)


class UnknownRecord(msgspec.Struct, frozen=True, gc=False):
    """An entry of a kind that this build does not know.

    It is read, and never written.
    """

    kind: str


class EncodedDecision(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A valid decision as a fold reads it: the bytes of its record, and what every fold asks.

    It credits no sources, and each chosen action has a propensity of at most 1. ``slots``: how many
    were filled by a draw; ``has_placed``: whether items were placed on its page; the other fields
    are DecisionRecord's.
    """

    data: bytes
    event_id: str
    spec: str
    catalogue: str
    slots: int
    deferred: bool
    holdout: bool
    has_placed: bool = False


def kind_of(record: LogRecord | UnknownRecord | EncodedDecision) -> str:
    """Return the name of a record's kind in the log."""
    if isinstance(record, UnknownRecord):
        return record.kind
    kind = DecisionRecord if isinstance(record, EncodedDecision) else record
    return str(kind.__struct_config__.tag)


class LogEntry(msgspec.Struct, frozen=True, gc=False):
    """One entry of the log.

    Its id ("milliseconds-sequence", the log's own clock) is its event time.
    """

    id: str
    record: LogRecord | UnknownRecord | EncodedDecision

    @property
    def time_ms(self) -> int:
        """Event time in milliseconds since the epoch."""
        return int(self.id.partition("-")[0])
