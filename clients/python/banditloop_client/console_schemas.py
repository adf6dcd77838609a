"""The messages that a console needs: decisions looked at, snapshots managed, sources watched.

What takes long (a report, the doctor, a decision of long ago) is answered by a process of its own,
so these endpoints may answer 503 where it is off or gone.
"""

from datetime import datetime
from types import NoneType
from typing import Annotated, Literal

import msgspec

from banditloop_client.explain_schemas import Explanation, SourceSaid
from banditloop_client.schemas import (
    POLICY_PATH,
    Chosen,
    Endpoint,
    FeatureMap,
    PlacedItem,
    RankRequest,
    RefreshInfo,
    Trouble,
    UnplacedItem,
)

MAX_DECISIONS = 100

DecisionOutcome = Literal[
    "open", "rewarded", "unrewarded", "not_activated", "duplicate", "not_read"
]
"""How far a decision is joined with its rewards.

``open``: its window has not closed. ``rewarded`` and ``unrewarded``: it has, and the latter counts
the default. ``not_activated``: it was deferred, and nobody said in time that it was shown.
``duplicate``: its event_id was a decision's before, and that one counts. ``not_read``: so much
was logged since that nobody has looked.
"""
RewardOutcome = Literal[
    "joined", "waiting", "duplicate", "late", "invalid", "unactivated", "placed", "unknown_signal"
]
"""How a reward was counted; ``waiting``: until its decision is activated."""
Verified = Literal["equal", "unequal", "older_build", "gone", "not_asked"]
"""Whether the logged probabilities follow from the model that is said to have made them.

``equal``: byte for byte. ``unequal``: others do. ``older_build``: others do, and another build made
the model, whose last digits may differ. ``gone``: the model cannot be had any more. ``not_asked``:
no model was: the decision was held out, or everything was placed.
"""


class DecisionsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page of decisions, the newest first."""

    limit: Annotated[
        int, msgspec.Meta(ge=1, le=MAX_DECISIONS, description="How many decisions at most.")
    ] = 25
    before: Annotated[
        str, msgspec.Meta(description="The `next` of the page before; else the newest are given.")
    ] = ""
    user_id: Annotated[str, msgspec.Meta(description="Only decisions for this user.")] = ""


class EventQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a decision is, if that is known."""

    entry: Annotated[
        str,
        msgspec.Meta(description="Its entry, as a list of decisions has it: it is found at once."),
    ] = ""


class DecisionSummary(msgspec.Struct, frozen=True):
    """A decision in a list. ``entry``: its place in the log of its ``partition``.

    ``reward``: what its slots have earned so far, together; null: no reward has counted.
    """

    event_id: str
    entry: str
    time: datetime
    chosen: list[Chosen]
    outcome: DecisionOutcome
    reward: float | None = None
    placed: list[PlacedItem] = []
    holdout: bool = False
    partition: int = 0


class DecisionsPage(msgspec.Struct, frozen=True):
    """Decisions, the newest first. ``next``: what comes ``before`` them; null: nothing does."""

    decisions: list[DecisionSummary]
    next: str | None = None


class DecisionCandidate(msgspec.Struct, frozen=True):
    """An action that a decision could choose.

    ``probability``: in the first slot that was drawn; ``slot``: where it was chosen, if it was.
    ``sources``: by name, the score and the rank that each gave it. ``boost``: what rules added to
    its score. ``features``: those of the request; null: the catalogue's counted. ``own``: beside an
    apprentice, the probability that the policy itself gave it.
    """

    id: str
    probability: float
    slot: int | None = None
    sources: dict[str, SourceSaid] = {}
    boost: float = 0.0
    features: FeatureMap | None = None
    own: float | None = None


class OwnChoice(msgspec.Struct, frozen=True):
    """The choice of an apprentice, beside which another was served.

    ``served``: by whose choice that was: ``first``, ``request``, ``drawn``, ``source`` or
    ``holdout``. ``chosen``: by slot, what the policy would have chosen, with its probability there.
    """

    served: str
    chosen: list[Chosen]


class RemovedActions(msgspec.Struct, frozen=True):
    """What a rule took away before anything had a probability: the first ids, and how many."""

    rule: str
    ids: list[str]
    count: int


class LoggedReward(msgspec.Struct, frozen=True):
    """A reward of a decision as the log has it, and how it was joined."""

    entry: str
    time: datetime
    value: float
    outcome: RewardOutcome
    slot: int | None = None
    action_id: str | None = None
    reward_id: str | None = None
    signal: str | None = None


class EarnedSlot(msgspec.Struct, frozen=True):
    """What a slot of a page has earned so far; null: no reward has counted, so the default does."""

    slot: int
    id: str
    reward: float | None


class DecisionEvent(msgspec.Struct, frozen=True):
    """A decision as the log has it, and what came of it.

    ``closes``: when its window does, in the log's time. ``user``: the pseudonym that it was logged
    under; ``erased``: whether its user was erased since, as far as is still known. ``candidates``:
    the likeliest first. ``removed``: what rules took away. ``failed``: by source, why it said
    nothing. ``short``: why there are fewer slots than were asked for. ``credited``: of a mixture,
    the source that each drawn slot is credited to. ``earned``: by slot. ``default_reward``: what a
    slot without a reward counts. ``rewards_read``: false where so much was logged since that the
    rewards were not looked for. ``apprentice``: what the policy would have chosen; null: it chose.
    """

    event_id: str
    policy: str
    entry: str
    partition: int
    time: datetime
    outcome: DecisionOutcome
    closes: datetime
    context: FeatureMap
    chosen: list[Chosen]
    candidates: list[DecisionCandidate]
    snapshot_id: str
    spec: str
    catalogue: str
    default_reward: float
    aggregation: str
    artifact: str | None = None
    user: str | None = None
    erased: bool = False
    holdout: bool = False
    deferred: bool = False
    placed: list[PlacedItem] = []
    unplaced: list[UnplacedItem] = []
    removed: list[RemovedActions] = []
    failed: dict[str, str] = {}
    short: str | None = None
    filter: str | None = None
    credited: list[str] = []
    rewards: list[LoggedReward] = []
    earned: list[EarnedSlot] = []
    rewards_read: bool = True
    apprentice: OwnChoice | None = None


class ExplainedEvent(msgspec.Struct, frozen=True):
    """Why a decision of the log is as it is.

    ``model``: where the model came from, or why there is none. ``verified``: whether the logged
    probabilities follow from it. ``explanation``: null where the model cannot be had any more.
    ``served``: beside an apprentice, by whose choice was served; the explanation is of its own.
    """

    entry: str
    event_id: str
    policy: str
    snapshot_id: str
    model: str
    verified: Verified
    context: FeatureMap
    chosen: list[str]
    propensities: list[float]
    holdout: bool
    explanation: Explanation | None
    served: str | None = None


class PreviewResponse(msgspec.Struct, frozen=True):
    """What a request would be answered now. Nothing is logged, and nothing is remembered.

    ``candidates``: the likeliest first. ``profile``: whether all that is known of the user was
    read; null: nobody is named, or nobody is known. The other fields are those of a decision.
    """

    policy: str
    snapshot_id: str
    chosen: list[Chosen]
    candidates: list[DecisionCandidate]
    explanation: Explanation
    holdout: bool = False
    profile: bool | None = None
    placed: list[PlacedItem] = []
    unplaced: list[UnplacedItem] = []
    removed: list[RemovedActions] = []
    failed: dict[str, str] = {}
    short: str | None = None


class SnapshotSummary(msgspec.Struct, frozen=True):
    """A snapshot in a list; of one that is ``corrupt`` only the id is known.

    ``position``: the entry of the log that it was trained through, at ``time``. ``learned``: how
    many interactions it has learned. ``size``: of the model, in bytes. ``served``, ``pinned``;
    ``checkpoint``: whether it is kept, for one of the learner's states is of the same moment.
    """

    id: str
    position: str | None = None
    time: datetime | None = None
    learned: int = 0
    size: int = 0
    spec: str | None = None
    catalogue: str | None = None
    artifact: str | None = None
    served: bool = False
    pinned: bool = False
    checkpoint: bool = False
    corrupt: bool = False


class SnapshotsResponse(msgspec.Struct, frozen=True):
    """The stored snapshots, the newest first. ``pinned``: the one that is, if one is."""

    served: str | None
    pinned: str | None
    snapshots: list[SnapshotSummary]


class SnapshotChange(msgspec.Struct, frozen=True):
    """A change is in the log. ``done``: a learner has made it; ``effect``: what holds then."""

    done: bool
    effect: str


class ReportQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of what time a report is."""

    since: Annotated[
        str,
        msgspec.Meta(description="Skip older entries: a span before the end (24h), a time, an id."),
    ] = ""


class SourceState(msgspec.Struct, frozen=True):
    """A source of a policy.

    ``kind``: as in the spec. ``failures``: how often it gave nothing since this replica started;
    ``trouble``: the last one of any replica.
    """

    name: str
    kind: str
    failures: int = 0
    trouble: Trouble | None = None


class SourcesResponse(msgspec.Struct, frozen=True):
    """The sources of a policy, and the last refresh of what they were trained to.

    ``artifact``: the version that serves; ``artifact_wanted`` and ``artifact_trouble``: the one
    that is to, and why it does not. ``refresh``: null if there never was one.
    """

    sources: list[SourceState]
    artifact: str | None = None
    artifact_wanted: str | None = None
    artifact_trouble: Trouble | None = None
    refresh: RefreshInfo | None = None


EVENT_PATH = f"{POLICY_PATH}/events/{{event_id}}"
SNAPSHOTS_PATH = f"{POLICY_PATH}/snapshots"

DECISIONS = Endpoint(
    "GET", f"{POLICY_PATH}/decisions", NoneType, DecisionsPage, query=DecisionsQuery
)
EVENT = Endpoint("GET", EVENT_PATH, NoneType, DecisionEvent, query=EventQuery)
EXPLAIN = Endpoint("GET", f"{EVENT_PATH}/explain", NoneType, ExplainedEvent, query=EventQuery)
PREVIEW = Endpoint("POST", f"{POLICY_PATH}/preview", RankRequest, PreviewResponse)
SNAPSHOTS = Endpoint("GET", SNAPSHOTS_PATH, NoneType, SnapshotsResponse)
PIN = Endpoint("POST", f"{SNAPSHOTS_PATH}/{{snapshot_id}}/pin", NoneType, SnapshotChange)
UNPIN = Endpoint("DELETE", f"{SNAPSHOTS_PATH}/{{snapshot_id}}/pin", NoneType, SnapshotChange)
ROLLBACK = Endpoint("POST", f"{SNAPSHOTS_PATH}/{{snapshot_id}}/rollback", NoneType, SnapshotChange)
REPORT = Endpoint("GET", f"{POLICY_PATH}/report", NoneType, dict, query=ReportQuery)
DOCTOR = Endpoint("GET", f"{POLICY_PATH}/doctor", NoneType, dict)
SOURCES = Endpoint("GET", f"{POLICY_PATH}/sources", NoneType, SourcesResponse)
