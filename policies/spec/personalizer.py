"""The field ``personalizer`` of a policy spec: what its clients have set that nothing else says."""

from typing import Annotated

import msgspec

SEVERAL_SLOTS = "--ccb_explore_adf"
Days = Annotated[int, msgspec.Meta(ge=-1, le=36_500)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class PersonalizerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What clients of Azure AI Personalizer have set, and are told again.

    Nothing that a decision or a model depends on is among it: that is in the fields of the spec.

    Attributes:
        arguments: the policy's Vowpal Wabbit arguments, as they were sent; without them, those of
            the learner.
        model_export_frequency_s: how often a model is taken over, in seconds. Here it is about once
            a second, whatever it says.
        log_retention_days: for how long the log is kept; -1: for ever.
        model_retrain_days: how much of the log a changed policy learns again. Here it learns all or
            nothing of it (on_change).
        explains: whether answers say why.
        edited: when something was changed last, in ISO 8601.
    """

    arguments: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    model_export_frequency_s: Seconds = 300.0
    log_retention_days: Days = 90
    model_retrain_days: Annotated[int, msgspec.Meta(ge=0, le=36_500)] = 2
    explains: bool = False
    edited: str = ""

    @property
    def has_one_slot(self) -> bool:
        """Whether the arguments are there, and decide one slot at a time."""
        return self.arguments is not None and SEVERAL_SLOTS not in self.arguments.split()
