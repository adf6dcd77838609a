"""Why a decision is as it is: what an explanation says."""

import msgspec


class ExplainedTerm(msgspec.Struct, frozen=True, gc=False):
    """A part of an action's score.

    ``features``: whose it is, each as ``namespace.name``; of two it is their product, of none the
    constant. ``value``: that of the feature, or the product of the values; ``weight``: what one
    unit of it adds; ``adds``: the value times the weight.
    """

    features: list[str]
    value: float
    weight: float
    adds: float


class SourceSaid(msgspec.Struct, frozen=True, gc=False):
    """What a source said of an action: its score, and the rank of it, from 1."""

    score: float
    rank: int


class ExplainedAction(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why an action has its probability.

    ``probability``: in the first slot; ``slot``: where it was chosen, if it was. ``score``: what
    the model says it earns, the sum of what the ``terms`` add; null where the model gives no sum.
    ``boost``: what rules added to the score. ``draws``: with Thompson sampling, the share of the
    draws in which it was the best. ``sources``: by name, what each says of it. ``page``: what the
    page's rules added to the score in its slot, given those before.
    """

    id: str
    probability: float
    slot: int | None = None
    score: float | None = None
    boost: float = 0.0
    draws: float | None = None
    terms: list[ExplainedTerm] = msgspec.field(default_factory=list)
    sources: dict[str, SourceSaid] = msgspec.field(default_factory=dict)
    page: float = 0.0


class Explanation(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a decision is as it is.

    ``learner`` and ``exploration``: their kinds in the spec. ``floor``: the probability that all
    actions share. ``actions``: those that were chosen, by slot, and the likeliest others:
    up to 3 in the answer to a rank, else up to 10.
    ``note``: what cannot be said, and why.
    """

    learner: str
    exploration: str
    floor: float
    actions: list[ExplainedAction]
    note: str | None = None
