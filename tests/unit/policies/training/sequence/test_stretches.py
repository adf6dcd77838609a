"""Stretches of what users did: each event is predicted once, from no more than was before it."""

import numpy as np
import torch

from policies.artifacts.histories import Histories
from policies.training.sequence.order import in_order
from policies.training.sequence.stretches import stretches_of

LENGTHS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 20]


def made(held_out: int):
    events = sum(LENGTHS)
    histories = Histories(
        items=tuple(map(str, range(events))),
        users=tuple(map(str, range(len(LENGTHS)))),
        starts=np.append(0, np.cumsum(LENGTHS)),
        indices=np.arange(events, dtype=np.int32),
        weights=np.ones(events, np.float32),
        times=np.arange(events),
    )
    return stretches_of(in_order(histories), 4, held_out, seed=0)


def predicted(windows) -> list[int]:
    stretches = zip(windows.starts.tolist(), windows.stops.tolist(), strict=True)
    return sorted(at for start, stop in stretches for at in range(start + 1, stop))


def test_every_event_but_each_users_first_is_predicted_once():
    windows = made(held_out=0)
    first = np.cumsum([0, *LENGTHS[:-1]])
    assert predicted(windows) == sorted(set(range(sum(LENGTHS))) - set(first.tolist()))
    assert int((windows.stops - windows.starts).max()) == 5
    assert len(windows.judged) == 0


def test_what_is_held_out_is_the_last_event_of_a_fifth_of_those_who_can_judge():
    windows = made(held_out=100)
    able = sum(length >= 3 for length in LENGTHS)
    assert len(windows.judged) == able // 5
    ends = np.cumsum(LENGTHS) - 1
    assert set(windows.judged.tolist()) <= set(ends.tolist())
    assert not set(windows.judged.tolist()) & set(predicted(windows))
    assert all(windows.judged - windows.first >= 2)
    assert len(made(held_out=1).judged) == 1


def test_events_of_stretches_stand_one_after_the_other():
    windows = made(held_out=0)
    at, there = windows.events(torch.tensor([3, 10]), torch.tensor([5, 13]))
    assert at.tolist() == [3, 4, 10, 11, 12]
    assert there.tolist() == [[True, True, False], [True, True, True]]
