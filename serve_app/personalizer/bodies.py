"""The bodies of Personalizer's single- and multi-slot calls; fields that are not known are left."""

import msgspec

from serve_app.personalizer.features import FeatureObjects


class RankableAction(msgspec.Struct, frozen=True, gc=False):
    """An action that may be chosen."""

    id: str
    features: FeatureObjects | None = None


class RankCall(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """What ``rank`` sends."""

    actions: list[RankableAction]
    context_features: FeatureObjects | None = None
    excluded_actions: list[str] | None = None
    event_id: str | None = None
    defer_activation: bool | None = None


class PlainAction(msgspec.Struct, frozen=True, gc=False):
    """An action with one object of features, none of which is in a namespace: as most are."""

    id: str
    features: tuple[dict[str, float | str | bool]]


class PlainRankCall(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """What ``rank`` sends, where all actions are plain."""

    actions: list[PlainAction]
    context_features: FeatureObjects | None = None
    excluded_actions: list[str] | None = None
    event_id: str | None = None
    defer_activation: bool | None = None


class RankedAction(msgspec.Struct, frozen=True, gc=False):
    """An action, with the probability of its choice."""

    id: str
    probability: float


class FeatureScore(msgspec.Struct, frozen=True):
    """How much a feature adds to an action's score."""

    name: str
    score: float


class InferenceExplanation(msgspec.Struct, frozen=True):
    """Why an action has its score."""

    id: str
    features: list[FeatureScore]


class RankResult(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """What ``rank`` is answered; an explanation only where the configuration asks for it."""

    ranking: list[RankedAction]
    event_id: str
    reward_action_id: str
    inference_explanation: list[InferenceExplanation] | None = None


class RewardCall(msgspec.Struct, frozen=True):
    """What ``reward`` sends."""

    value: float


class SlotCall(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """A slot of a page, and the action that stands there without Personalizer."""

    id: str
    baseline_action: str
    features: FeatureObjects | None = None
    excluded_actions: list[str] | None = None


class MultiSlotRankCall(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """What ``rank_multi_slot`` sends."""

    actions: list[RankableAction]
    slots: list[SlotCall]
    context_features: FeatureObjects | None = None
    event_id: str | None = None
    defer_activation: bool | None = None


class SlotResult(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """What was chosen for a slot."""

    id: str
    reward_action_id: str


class MultiSlotRankResult(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """What ``rank_multi_slot`` is answered."""

    slots: list[SlotResult]
    event_id: str


class SlotReward(msgspec.Struct, frozen=True, rename="camel"):
    """A reward of a slot."""

    slot_id: str
    value: float


class MultiSlotRewardCall(msgspec.Struct, frozen=True):
    """What ``reward_multi_slot`` sends."""

    reward: list[SlotReward]
