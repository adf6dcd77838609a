"""The bodies of evaluations."""

from typing import Annotated, Any

import msgspec


class JudgedContract(msgspec.Struct, frozen=True):
    """A policy that is to be judged, by the name that it has in the answer."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    arguments: str


class EvaluationContract(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An evaluation that is wanted."""

    name: str
    start_time: str
    end_time: str
    policies: list[JudgedContract] | None = None
    enable_policy_optimization: bool | None = False
    enable_offline_experimentation: bool | None = False


class EvaluationQuery(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Behind the path of an evaluation: over which time its series are."""

    start_time: str | None = None
    end_time: str | None = None
    interval_in_minutes: int | None = None
    window: str | None = None


class ListQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Behind the path of a list: which part of it, and of which type."""

    skip: Annotated[int, msgspec.Meta(ge=0)] = 0
    top: Annotated[int, msgspec.Meta(ge=0)] | None = None
    filter: str = ""


class EvaluationSummary(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The value of a policy, and its 95% interval."""

    expected_reward: float
    confidence_interval: tuple[float, float]


class EvaluationPoint(EvaluationSummary, frozen=True, kw_only=True, rename="camel"):
    """The same as of a time."""

    time_stamp: str


class EvaluationSeries(msgspec.Struct, frozen=True):
    """The values of a policy over time."""

    data: list[EvaluationPoint]


class EvaluatedPolicy(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True
):
    """What an evaluation has found of one policy; of one that was asked for, its arguments too."""

    arguments: str | None = None

    name: str
    policy_source: str
    slot_id: str
    summary: EvaluationSummary
    timeseries: EvaluationSeries


class EvaluationContent(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What an evaluation has found."""

    start_time: str
    end_time: str
    interval_in_minutes: int
    value: list[EvaluatedPolicy]


class EvaluationBody(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An evaluation; in a list it is without what it has found."""

    id: str
    name: str
    start_time: str
    end_time: str
    creation_time: str
    status: str
    evaluation_type: str
    optimal_policy: str | None = None
    description: str | None = None
    content: EvaluationContent | None = None


class FeatureImportanceContract(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Feature importances that are wanted."""

    name: str
    start_time: str
    end_time: str


class ImportantFeature(msgspec.Struct, frozen=True, rename="camel"):
    """How much a feature matters; the one that matters most has 1."""

    namespace: str
    feature_name: str
    score: float


class FeatureImportance(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True
):
    """How much each feature matters; in a list it is without the scores."""

    id: str
    name: str
    start_time: str
    end_time: str
    creation_time: str
    status: str
    description: str | None = None
    feature_scores: list[ImportantFeature] | None = None


class ListedBodies(msgspec.Struct, frozen=True):
    """All there are: they are few, so a list has no second page."""

    value: list[Any]
