"""The messages of the HTTP API: requests, responses, errors, and the endpoints they belong to.

The service decodes and answers these very types, and makes its OpenAPI document of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from types import NoneType
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from msgspec import UNSET, UnsetType

from banditloop_client.explain_schemas import Explanation

Value = float | str | bool | list[str]
FeatureMap = dict[str, Value]

MAX_EVENT_ID_BYTES = 256
MAX_ACTIONS = 1000
MAX_SLOTS = 50
MAX_BATCH = MAX_ACTIONS
MAX_ITEMS = 10_000
MAX_PAGE = 1_000

# The checks raise errors of their own; readers of the schema are told all the same.
EventId = Annotated[
    str, msgspec.Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_EVENT_ID_BYTES})
]
ActionId = Annotated[str, msgspec.Meta(extra_json_schema={"minLength": 1})]
_AtMost = msgspec.Meta(extra_json_schema={"maxItems": MAX_ACTIONS})


class ActionRequest(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False
):
    """An explicit action: its id, perhaps its features (else the catalogue's) and source scores."""

    id: ActionId
    features: FeatureMap | None = None
    scores: dict[str, float] | None = None


class BaselineProbabilities(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a baseline draws from: the action is drawn here, or was already (``id``)."""

    probabilities: dict[str, float]
    id: str | None = None


class RankRequest(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False
):
    """A request for one decision: ``actions``, or a ``user_id`` or ``history`` for the sources.

    ``baseline``: what is served beside a policy whose mode is apprentice: an action, one for each
    slot, or probabilities. A policy that decides itself does not look at it, and says so
    (``ignored``).
    """

    event_id: EventId | None = None
    user_id: str | None = None
    context: FeatureMap = msgspec.field(default_factory=dict)
    history: list[str] = msgspec.field(default_factory=list)
    actions: Annotated[list[ActionRequest], _AtMost] | None = None
    exclude: list[str] = msgspec.field(default_factory=list)
    slots: Annotated[int, msgspec.Meta(ge=1, le=MAX_SLOTS)] = 1
    defer_activation: bool = False
    return_pmf: bool = False
    visit_id: str | None = None
    filter: str | None = None
    explain: bool = False
    baseline: str | list[str] | BaselineProbabilities | None = None


Time = Annotated[datetime, msgspec.Meta(tz=True)]
Vector = list[float]


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One item: ``features`` are learned from, ``metadata`` (a title, say) is carried along.

    ``vectors`` say by name what it is like, for sources that compare items. It is offered from
    ``available_from`` until just before ``available_until``, unless it is ``hidden``.
    """

    id: ActionId
    features: FeatureMap = msgspec.field(default_factory=dict)
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    vectors: dict[str, Vector] | UnsetType = UNSET
    available_from: Time | UnsetType = UNSET
    available_until: Time | UnsetType = UNSET
    hidden: bool | UnsetType = UNSET


class ItemPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Some fields of an item, as a JSON merge patch (RFC 7386): ``null`` takes one away."""

    features: dict[str, Value | None] | UnsetType | None = UNSET
    metadata: dict[str, str | None] | UnsetType | None = UNSET
    vectors: dict[str, Vector | None] | UnsetType | None = UNSET
    available_from: Time | UnsetType | None = UNSET
    available_until: Time | UnsetType | None = UNSET
    hidden: bool | UnsetType | None = UNSET


class ItemRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An item at its own path: its ``id`` may be left out, or is that of the path."""

    id: ActionId | UnsetType = UNSET
    features: FeatureMap = msgspec.field(default_factory=dict)
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    vectors: dict[str, Vector] | UnsetType = UNSET
    available_from: Time | UnsetType = UNSET
    available_until: Time | UnsetType = UNSET
    hidden: bool | UnsetType = UNSET

    def item(self, item_id: str) -> Item:
        """Return the item, under this id."""
        fields = (getattr(self, name) for name in self.__struct_fields__[1:])
        return Item(item_id, *fields)


class ItemsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to 10,000 items, each put in the place of what has its id; none, where one is refused."""

    items: Annotated[
        list[Item], msgspec.Meta(extra_json_schema={"minItems": 1, "maxItems": MAX_ITEMS})
    ]


def _asked(what: str, *, least: int | None = None, most: int | None = None) -> msgspec.Meta:
    """Return what a document says of one thing that is asked behind a path."""
    return msgspec.Meta(ge=least, le=most, description=what)


class ItemsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page of items, in the order of their ids."""

    after: Annotated[str, _asked("The id behind which the page begins.")] = ""
    limit: Annotated[int, _asked("How many items at most.", least=1, most=MAX_PAGE)] = 100
    contains: Annotated[
        str, _asked("Only items whose id or metadata contain this text, in capitals or not.")
    ] = ""


class SimilarQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The items that are like one."""

    source: Annotated[
        str | None,
        _asked("The source that says it; else the first of those that can which has an answer."),
    ] = None
    limit: Annotated[int, _asked("How many items at most.", least=1, most=MAX_PAGE)] = 20
    filter: Annotated[
        str | None,
        _asked("Only items that this condition (CEL over item and time) admits, too."),
    ] = None


Slot = Annotated[int, msgspec.Meta(ge=0, lt=MAX_SLOTS)]


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


class Chosen(msgspec.Struct, frozen=True, gc=False):
    """One slot's action, with its propensity given those that were drawn for slots before it."""

    slot: int
    id: str
    propensity: float


class PlacedItem(msgspec.Struct, frozen=True):
    """An item that stands in a slot of the page by a placement of the policy, and by no draw."""

    slot: int
    id: str


class UnplacedItem(msgspec.Struct, frozen=True):
    """An item that was to stand in a slot, and does not; another was drawn for it, or placed.

    ``reason``: ``unavailable``, ``filtered``, ``excluded``, ``not_sent`` (the request brings its
    actions, and not this one), ``twice`` (it stands in another slot) or ``taken`` (the item of a
    placement before stands in this one).
    """

    slot: int
    id: str
    reason: str


class Probability(msgspec.Struct, frozen=True):
    """One entry of a PMF."""

    id: str
    probability: float


class RankResponse(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A decision. ``logged`` false means: not known to be logged.

    ``chosen`` are the slots of the page that something was drawn for, ``placed`` the others, and
    ``unplaced`` what was to be placed and could not. ``pmf`` is of the first that was drawn.

    ``profile`` and ``repeat``: of a policy with profiles, whether it was made with all that is
    known of the user, and whether all that its ``repeat`` says was heeded; null where nobody is
    named, or the policy says no such thing. ``explanation``: why it is so, if that was asked.
    ``short``: why there are fewer slots than were asked for, where the page has rules.
    ``ignored``: fields of the request that the policy does not look at: ``baseline``, where it
    decides itself.
    """

    event_id: str
    policy: str
    snapshot_id: str
    logged: bool
    chosen: list[Chosen]
    pmf: list[Probability] | None = None
    profile: bool | None = None
    repeat: bool | None = None
    explanation: Explanation | None = None
    short: str | None = None
    placed: list[PlacedItem] | None = None
    unplaced: list[UnplacedItem] | None = None
    ignored: list[str] | None = None


class RewardRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A reward; higher is better.

    ``reward_id`` makes retries safe; without it a slot takes one reward of each signal. ``signal``:
    what kind of reward it is, one that the policy's spec weighs.
    """

    value: float
    reward_id: str | None = None
    slot: Slot | None = None
    action_id: str | None = None
    signal: str | None = None


class RewardEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A reward in a list."""

    event_id: EventId
    value: float
    reward_id: str | None = None
    slot: Slot | None = None
    action_id: str | None = None
    signal: str | None = None


class RewardsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to 1,000 rewards; all are accepted or none is."""

    rewards: Annotated[list[RewardEvent], msgspec.Meta(max_length=MAX_BATCH)]


class RankBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to 1,000 rank requests; each has its own result or error."""

    requests: Annotated[list[RankRequest], msgspec.Meta(max_length=MAX_BATCH)]


class ErrorBody(msgspec.Struct, frozen=True):
    """What went wrong, and in which field."""

    code: str
    message: str
    target: str | None = None


class ErrorResponse(msgspec.Struct, frozen=True):
    """Any failure."""

    error: ErrorBody


class RankBatchResponse(msgspec.Struct, frozen=True):
    """One result per request, in order."""

    results: list[
        Annotated[
            Any,
            msgspec.Meta(
                extra_json_schema={"anyOf": [_ref("RankResponse"), _ref("ErrorResponse")]}
            ),
        ]
    ]


class Accepted(msgspec.Struct, frozen=True):
    """Durably in the log."""

    accepted: int


class CatalogueRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole new catalogue."""

    items: list[Item]


class CatalogueResponse(msgspec.Struct, frozen=True):
    """The catalogue's version: its digest."""

    catalogue: str
    items: int


class ItemsVersion(msgspec.Struct, frozen=True):
    """The version that a change of items has made, and how many items there are in it."""

    version: str
    items: int


class ItemResponse(msgspec.Struct, frozen=True):
    """An item, as of a version."""

    version: str
    item: Item


class ItemsPage(msgspec.Struct, frozen=True):
    """A page of items, as of a version. ``next``: what comes ``after`` it; null at the end.

    ``total``: how many items there are, of this page or not.
    """

    version: str
    total: int
    items: list[Item]
    next: str | None = None


class SimilarItem(msgspec.Struct, frozen=True):
    """An item that is like another.

    ``score``: the more alike, the higher; on the source's own scale.
    """

    id: str
    score: float


class SimilarResponse(msgspec.Struct, frozen=True):
    """Items like one, the most alike first, all of which may be offered now.

    ``id``: the one. ``source``: who says it. ``items``: none where it knows nothing of an item that
    is new.
    """

    id: str
    source: str
    items: list[SimilarItem]


class Trouble(msgspec.Struct, frozen=True):
    """The reason of a source's last failure, and its time in seconds since the epoch."""

    reason: str
    at_s: float


class Stalled(msgspec.Struct, frozen=True):
    """Where a policy's learning stands still: at the entry of this id and kind.

    ``since_ms`` of the log's clock.
    """

    policy: str
    entry: str
    kind: str
    since_ms: int
    partition: int = 0


class Refused(msgspec.Struct, frozen=True):
    """An entry of the log that was refused, and why."""

    entry: str
    kind: str
    reason: str


class SignalInfo(msgspec.Struct, frozen=True):
    """The rewards of one signal that counted; ``reward`` is what those are of that name none."""

    count: int
    mean: float


class QuotaInfo(msgspec.Struct, frozen=True):
    """How a quota stands, or a group that is to have its floor.

    ``share``: of what was shown in the last while, null if nothing of it could be shown yet;
    ``wanted``: what it is to be at least, or at most; ``price``: what is added to the scores of its
    items; ``capped``: whether that is as much as the spec allows.
    """

    share: float | None
    wanted: float
    price: float
    capped: bool


class PriorInfo(msgspec.Struct, frozen=True):
    """The rows that the served model was taught before its first decision.

    ``rows`` were taught, each worth ``strength`` interactions, and ``skipped`` were not: the
    catalogue or the sources lack their items. ``reason``: why the newest prior of the log was not
    taught to this model; empty if it was.
    """

    rows: int
    skipped: int
    strength: float
    reason: str = ""


class RefreshMeasure(msgspec.Struct, frozen=True):
    """A measure of the artifact that served (``serving``) and of a new one (``fresh``).

    ``what`` was measured on ``n`` of ``of``, decisions or users; ``low`` and ``high`` are the ends
    of the difference's 97.5% interval: where two measures decide, both hold with 95%.
    """

    what: str
    of: str
    weights: str
    n: int
    serving: float | None
    fresh: float
    low: float | None = None
    high: float | None = None


class RefreshInfo(msgspec.Struct, frozen=True):
    """The last refresh of a policy's sources.

    ``outcome``: ``accepted``, ``refused`` (the new artifact was worse), ``stored`` (where the
    policy does not look) or ``failed``; ``code`` and ``message`` say why. ``artifact``: the version
    that was made, if any. Times are in ms of the log's clock. ``counts``: how many refreshes ended
    how.
    """

    outcome: str
    started_ms: int
    ended_ms: int
    by: str = ""
    code: str = ""
    message: str = ""
    artifact: str = ""
    measures: list[RefreshMeasure] = []
    counts: dict[str, int] = {}


class PolicyInfo(msgspec.Struct, frozen=True):
    """A policy as this replica serves it. ``spec`` is the whole spec.

    ``source_troubles``: by source, what was last wrong with it in any replica that runs.
    ``learning``: ``ok``, ``stalled``, or ``unknown`` while Redis does not say; ``stalled`` and
    ``reason``: where and why. ``refused``: the entries that were refused last. ``learned``: the
    interactions in the served snapshot; a prior counts as many as it is worth. ``prior``: null if
    the log has none. ``artifact`` and ``catalogue``: the versions that this replica serves;
    ``artifact_wanted``: the one that the log says, while this replica does not serve it;
    ``artifact_trouble``: why it, or another replica, does not. ``refresh``: null if there never was
    one.
    """

    policy: str
    ready: bool
    snapshot_id: str | None
    position: str | None
    learned: int
    items: int
    sources: list[str]
    spec: dict[str, Any]
    outcomes: dict[str, int]
    source_troubles: dict[str, Trouble] = {}
    learning: str = "unknown"
    stalled: Stalled | None = None
    reason: str | None = None
    refused: list[Refused] = []
    prior: PriorInfo | None = None
    artifact: str | None = None
    catalogue: str | None = None
    artifact_wanted: str | None = None
    artifact_trouble: Trouble | None = None
    refresh: RefreshInfo | None = None
    signals: dict[str, SignalInfo] = {}
    quotas: dict[str, QuotaInfo] = {}
    rule_troubles: dict[str, str] = {}


class PoliciesResponse(msgspec.Struct, frozen=True):
    """All policies of this service."""

    policies: list[str]


class Health(msgspec.Struct, frozen=True):
    """``status`` is ``ok``, or what is missing."""

    status: str
    waiting_for: list[str] = msgspec.field(default_factory=list)


class Readiness(msgspec.Struct, frozen=True):
    """``status`` is ``ok``, or what is missing.

    ``learning``: ``ok``, ``stalled``, or ``unknown``; with the entries. ``old_artifacts``: policies
    of which this replica cannot load the artifact that is to serve, and serves the one before.
    """

    status: str
    learning: str
    waiting_for: list[str] = msgspec.field(default_factory=list)
    stalled: list[Stalled] = msgspec.field(default_factory=list)
    old_artifacts: list[str] = msgspec.field(default_factory=list)


Q = TypeVar("Q")
A = TypeVar("A")


@dataclass(frozen=True)
class Endpoint(Generic[Q, A]):
    """A method and a path, and the types that they exchange.

    Attributes:
        path: its parameters are in braces.
        request: the type of the JSON body; NoneType where none is read.
        response: the type of the JSON answer; bytes where the answer is of another ``media``.
        status: of success.
        query: the type of what is asked behind the path; NoneType where nothing is.
    """

    method: str
    path: str
    request: type[Q]
    response: type[A]
    status: int = 200
    media: str = "application/json"
    query: type = NoneType

    def url(self, query: msgspec.Struct | None = None, /, **parameters: str) -> str:
        """Return the path with its parameters filled in; others than its own are left out.

        Args:
            query: what is asked behind the path; defaults are left out.
            parameters: by name.
        """
        quoted = {name: quote(value, safe="") for name, value in parameters.items()}
        asked = {
            field.name: getattr(query, field.name)
            for field in (() if query is None else msgspec.structs.fields(query))
            if getattr(query, field.name) != field.default
        }
        behind = f"?{urlencode(asked)}" if asked else ""
        return self.path.format_map(quoted) + behind

    @cached_property
    def decode(self) -> Callable[[bytes], A]:
        """Decodes an answer."""
        return msgspec.json.Decoder(self.response).decode


POLICIES_PATH = "/v1/policies"
POLICY_PATH = "/v1/policies/{policy}"

RANK = Endpoint("POST", f"{POLICY_PATH}/rank", RankRequest, RankResponse)
RANK_BATCH = Endpoint("POST", f"{POLICY_PATH}/rank:batch", RankBatch, RankBatchResponse)
REWARD = Endpoint("POST", f"{POLICY_PATH}/events/{{event_id}}/reward", RewardRequest, Accepted, 202)
ACTIVATE = Endpoint("POST", f"{POLICY_PATH}/events/{{event_id}}/activate", NoneType, Accepted, 202)
REWARDS = Endpoint("POST", f"{POLICY_PATH}/rewards", RewardsRequest, Accepted, 202)
CATALOGUE = Endpoint("PUT", f"{POLICY_PATH}/catalogue", CatalogueRequest, CatalogueResponse)
ITEMS_PATH = f"{POLICY_PATH}/items"
ITEM_PATH = f"{ITEMS_PATH}/{{item_id}}"
PUT_ITEM = Endpoint("PUT", ITEM_PATH, ItemRequest, ItemsVersion)
PATCH_ITEM = Endpoint("PATCH", ITEM_PATH, ItemPatch, ItemsVersion)
DELETE_ITEM = Endpoint("DELETE", ITEM_PATH, NoneType, ItemsVersion)
ITEM = Endpoint("GET", ITEM_PATH, NoneType, ItemResponse)
SIMILAR = Endpoint("GET", f"{ITEM_PATH}/similar", NoneType, SimilarResponse, query=SimilarQuery)
PUT_ITEMS = Endpoint("POST", ITEMS_PATH, ItemsRequest, ItemsVersion)
ITEMS = Endpoint("GET", ITEMS_PATH, NoneType, ItemsPage, query=ItemsQuery)
POLICY = Endpoint("GET", POLICY_PATH, NoneType, PolicyInfo)
POLICIES = Endpoint("GET", POLICIES_PATH, NoneType, PoliciesResponse)
LIVE = Endpoint("GET", "/livez", NoneType, Health)
READY = Endpoint("GET", "/readyz", NoneType, Readiness)
LEARNING = Endpoint("GET", "/healthz/learning", NoneType, Readiness)
METRICS = Endpoint("GET", "/metrics", NoneType, bytes, media="text/plain")
DOCUMENT = Endpoint("GET", "/openapi.json", NoneType, bytes)
DOCS = Endpoint("GET", "/docs", NoneType, bytes, media="text/html")
