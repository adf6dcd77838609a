"""How often an apprentice imitates, and what that earns, as Personalizer tells it."""

import msgspec
import numpy as np
import pytest

from bandits.log.join import JoinedDecision
from bandits.log.records import Apprentice, DecisionRecord
from policies.personalizer.apprentice_metrics import (
    ApprenticeModeMetrics,
    ApprenticeTally,
    BatchMetrics,
    added_up,
)

PMF = np.array([1.0, 0.0]).tobytes()


def joined(at: int, own: int | None, reward: float, *, correction: bool = False) -> JoinedDecision:
    """A decision of which the first of two actions was served."""
    beside = None if own is None else Apprentice("first", PMF, [own])
    record = DecisionRecord(
        *(f"e{at}", "home", "spec", "snapshot", "", {}, ["a", "b"], None, {}, PMF, [0]),
        apprentice=beside,
    )
    return JoinedDecision(f"{at}-0", record, (0,), (reward,), correction)


def tallied(*decisions: JoinedDecision) -> ApprenticeModeMetrics | None:
    tally = ApprenticeTally()
    for each in decisions:
        tally.add(each)
    return tally.metrics


def test_events_and_rewards_are_counted_where_the_own_choice_was_served_and_where_not() -> None:
    """A later reward changes the sums and not the count; the mode begins anew after another one."""
    assert tallied() is tallied(joined(1, None, 1.0)) is None
    found = tallied(
        joined(1000, 1, 9.0),
        joined(2000, None, 1.0),
        joined(3000, 0, 1.0),
        joined(4000, 1, 0.5),
        joined(4000, 1, 0.25, correction=True),
        joined(5000, 0, 0.0),
    )
    assert found is not None
    assert found.totals == BatchMetrics(
        number_of_events=3,
        number_of_imitated_events=2,
        sum_of_rewards=1.75,
        sum_of_imitated_rewards=1.0,
    )
    assert found.start_time == "1970-01-01T00:00:03.000Z"
    assert found.last_processed_event_time == "1970-01-01T00:00:05.000Z"
    assert found.last_batch_metrics == found.totals
    told = msgspec.to_builtins(found)
    assert told.keys() == {
        *("startTime", "lastProcessedEventTime", "lastBatchMetrics", "numberOfEvents"),
        *("numberOfImitatedEvents", "sumOfRewards", "sumOfImitatedRewards"),
    }


def test_the_newest_events_are_those_since_it_was_counted_before() -> None:
    """Where there are none since, they stay; of another run of the mode all are new."""
    first = [joined(1000, 0, 1.0), joined(2000, 1, 0.5)]
    earlier, later = tallied(*first), tallied(*first, joined(3000, 0, 0.25))
    assert earlier is not None
    assert later is not None
    newest = later.after(earlier)
    assert newest.last_batch_metrics == BatchMetrics(
        number_of_events=1,
        number_of_imitated_events=1,
        sum_of_rewards=0.25,
        sum_of_imitated_rewards=0.25,
    )
    assert newest.totals == later.totals
    assert later.after(newest).last_batch_metrics == newest.last_batch_metrics
    other = msgspec.structs.replace(earlier, start_time="2022-01-01T00:00:00.000Z")
    assert later.after(other) == later.after(None) == later


def test_partitions_add_up() -> None:
    parts = [tallied(joined(1000, 0, 1.0)), tallied(joined(500, 1, 0.5), joined(9000, 0, 0.0))]
    found = added_up([each for each in parts if each is not None])
    assert added_up([]) is None
    assert found is not None
    assert (found.number_of_events, found.number_of_imitated_events) == (3, 2)
    assert found.sum_of_rewards == pytest.approx(1.5)
    assert found.start_time == "1970-01-01T00:00:00.500Z"
    assert found.last_processed_event_time == "1970-01-01T00:00:09.000Z"
