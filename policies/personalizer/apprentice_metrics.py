"""What Personalizer says of a loop in Apprentice mode: how often it imitates, what that earns."""

from datetime import UTC, datetime

import msgspec

from bandits.log.encoded_decisions import whole_record
from bandits.log.join import JoinedDecision
from bandits.log.positions import position_ms


class BatchMetrics(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Sums over events whose windows have closed.

    Attributes:
        number_of_events: how many there were.
        number_of_imitated_events: of how many the own choice was the one that was served.
        sum_of_rewards: what all of them earned.
        sum_of_imitated_rewards: what those earned.
    """

    number_of_events: int = 0
    number_of_imitated_events: int = 0
    sum_of_rewards: float = 0.0
    sum_of_imitated_rewards: float = 0.0

    def since(self, before: "BatchMetrics") -> "BatchMetrics":
        """Return the sums over the events that came after those of ``before``."""
        return BatchMetrics(
            **{
                name: getattr(self, name) - getattr(before, name)
                for name in BatchMetrics.__struct_fields__
            }
        )


class ApprenticeModeMetrics(BatchMetrics, frozen=True, kw_only=True, rename="camel"):
    """The sums since the mode began, and those of the newest events alone."""

    start_time: str
    last_processed_event_time: str
    last_batch_metrics: BatchMetrics

    @property
    def totals(self) -> BatchMetrics:
        """The sums since the mode began."""
        return BatchMetrics(
            **{name: getattr(self, name) for name in BatchMetrics.__struct_fields__}
        )

    def after(self, earlier: "ApprenticeModeMetrics | None") -> "ApprenticeModeMetrics":
        """Return the metrics with the events since earlier ones as their newest.

        Where there are none since, the newest stay those they were.
        """
        if earlier is None or earlier.start_time != self.start_time:
            return self
        newest = self.totals.since(earlier.totals)
        if not newest.number_of_events:
            newest = earlier.last_batch_metrics
        return msgspec.structs.replace(self, last_batch_metrics=newest)


class ApprenticeTally:
    """Counts joined decisions, in the order in which their windows close.

    The mode begins with the first decision of an apprentice, and anew with the first one after a
    decision of a policy that was none.
    """

    def __init__(self) -> None:
        self._begun: str | None = None
        self._last = ""
        self._totals = BatchMetrics()

    def add(self, joined: JoinedDecision) -> None:
        """Count a decision, or what a later reward has changed of one."""
        record = whole_record(joined.record)
        if record.apprentice is None:
            if not joined.correction:
                self._begun, self._totals = None, BatchMetrics()
            return
        if self._begun is None:
            if joined.correction:
                return
            self._begun = joined.position

        is_event = not joined.correction
        imitates = record.own().chosen == record.chosen
        reward, held = sum(joined.rewards), self._totals
        self._totals = BatchMetrics(
            number_of_events=held.number_of_events + is_event,
            number_of_imitated_events=held.number_of_imitated_events + (is_event and imitates),
            sum_of_rewards=held.sum_of_rewards + reward,
            sum_of_imitated_rewards=held.sum_of_imitated_rewards + (reward if imitates else 0.0),
        )
        self._last = joined.position if is_event else self._last

    @property
    def metrics(self) -> ApprenticeModeMetrics | None:
        """What was counted; None: nothing, the mode is another."""
        if self._begun is None:
            return None
        fields = {name: getattr(self._totals, name) for name in BatchMetrics.__struct_fields__}
        return ApprenticeModeMetrics(
            **fields,
            start_time=_told(self._begun),
            last_processed_event_time=_told(self._last),
            last_batch_metrics=self._totals,
        )


def added_up(
    parts: list[ApprenticeModeMetrics],
) -> ApprenticeModeMetrics | None:
    """Return the metrics of all partitions of a log; None: there are none."""
    if not parts:
        return None
    sums = {
        name: sum(getattr(each, name) for each in parts) for name in BatchMetrics.__struct_fields__
    }
    return ApprenticeModeMetrics(
        **sums,
        start_time=min(each.start_time for each in parts),
        last_processed_event_time=max(each.last_processed_event_time for each in parts),
        last_batch_metrics=BatchMetrics(**sums),
    )


def _told(position: str) -> str:
    moment = datetime.fromtimestamp(position_ms(position) / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
