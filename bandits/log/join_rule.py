"""How rewards join decisions: a part of the spec."""

from typing import Annotated, Literal

import msgspec


class JoinRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How rewards join decisions.

    Attributes:
        window_s: how long a decision waits for its rewards, in seconds from its entry. A later
            reward is late as long as the decision is remembered, one more window.
        default_reward: the reward of a decision that got none.
        aggregation: which of several rewards of a slot counts, or whether they are added up.
        learn: whether a decision is learned when its window closes, or at once with the default
            reward and then corrected by each reward that counts.
        late: whether a late reward is ignored, or corrects the model.
    """

    window_s: Annotated[float, msgspec.Meta(gt=0, le=30 * 86400)] = 600.0
    default_reward: float = 0.0
    aggregation: Literal["first", "last", "sum", "max"] = "first"
    learn: Literal["at_close", "as_it_arrives"] = "at_close"
    late: Literal["ignore", "correct"] = "ignore"

    @property
    def window_ms(self) -> int:
        """The window in milliseconds, the log's unit of time."""
        return round(self.window_s * 1000)
