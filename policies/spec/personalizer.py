"""The field ``personalizer`` of a policy spec: what its clients have set that nothing else says."""

from typing import Annotated

import msgspec

SEVERAL_SLOTS = "--ccb_explore_adf"
MOST_DAYS = (1 << 31) - 1
"""As many as the protocol can say."""
Days = Annotated[int, msgspec.Meta(ge=-1, le=MOST_DAYS)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class PersonalizerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What clients of Azure AI Personalizer have set, and are told again.

    Nothing that a decision or a model depends on is among it: that is in the fields of the spec.

    Attributes:
        arguments: the policy's Vowpal Wabbit arguments, as they were sent; without them, those of
            the learner.
        model_export_frequency_s: how often a model is taken over, in seconds. Here it is about once
            a second, whatever it says.
        log_retention_days: for how many days the log is kept; -1, and without it: for ever.
        model_retrain_days: how much of the log a changed policy learns again. Here it learns all or
            nothing of it (on_change).
        auto_optimization_frequency_s: how often another policy would take over by itself, in
            seconds, if one did: none does.
        auto_optimization_start: since when one would.
        explains: whether answers say why.
        edited: when something was changed last, in ISO 8601.
    """

    arguments: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    model_export_frequency_s: Seconds = 300.0
    log_retention_days: Days | msgspec.UnsetType = msgspec.UNSET
    model_retrain_days: Annotated[int, msgspec.Meta(ge=0, le=MOST_DAYS)] = 2
    auto_optimization_frequency_s: Seconds | msgspec.UnsetType = msgspec.UNSET
    auto_optimization_start: str | msgspec.UnsetType = msgspec.UNSET
    explains: bool = False
    edited: str = ""

    @property
    def has_one_slot(self) -> bool:
        """Whether the arguments are there, and decide one slot at a time."""
        return self.arguments is not None and SEVERAL_SLOTS not in self.arguments.split()
