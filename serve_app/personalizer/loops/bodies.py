"""The bodies of the operations that change a loop, or say how it is."""

import msgspec


class PolicyContract(msgspec.Struct, frozen=True, kw_only=True):
    """A policy: arguments of Vowpal Wabbit. The name is the service's, whatever is sent."""

    name: str | None = ""
    arguments: str


class EvaluationChoice(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Which policy of which evaluation is to be the loop's."""

    evaluation_id: str
    policy_name: str


class ModelProperties(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """When the model was made first, and when last."""

    creation_time: str
    last_modified_time: str


class LogDates(msgspec.Struct, frozen=True, rename={"first": "from", "last": "to"}):
    """From when to when there is a log."""

    first: str
    last: str


class LogProperties(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What there is of a log; nothing where it is empty."""

    date_range: LogDates | None = None


class ModelExport(msgspec.Struct, frozen=True, kw_only=True):
    """Behind the path of a model: whether it is to be signed."""

    signed: str = "false"
