"""A shadow rests while its machine is busy, and works on when it is idle, or far behind."""

import pytest

from serve_app.workers.shadows.pace import LOOK_S, PATIENT_S, REST, Pace, used_by_others


class Machine:
    """A machine of two cores, and a thread on it."""

    def __init__(self) -> None:
        self.used, self.there, self.worked, self.now = 0, 0, 0.0, 0.0
        self.pace = Pace(
            lambda: (self.used, self.there), worked_s=lambda: self.worked, now_s=lambda: self.now
        )

    def rest_s(self, others: float, behind_s: float = 1.0, *, worked: float = 0.05) -> float:
        """After a look: others have used so many cores, and the thread has worked so long."""
        self.used += round(100 * others)
        self.there += 200
        self.worked += worked
        self.now += LOOK_S + 0.01
        return self.pace.rest_s(behind_s)


def test_it_rests_as_long_as_others_use_the_cores():
    machine = Machine()
    assert machine.rest_s(others=0.5) == 0.0
    assert machine.rest_s(others=1.2) == pytest.approx(REST * 0.05)
    assert machine.rest_s(others=1.2, worked=0.1) == pytest.approx(REST * 0.1)
    assert machine.rest_s(others=0.1) == 0.0


def test_what_was_worked_before_a_rest_is_counted_once():
    machine = Machine()
    machine.rest_s(others=2.0)
    assert machine.rest_s(others=2.0, worked=0.0) == 0.0


def test_who_is_far_behind_works_on_whatever_others_do():
    assert Machine().rest_s(others=2.0, behind_s=PATIENT_S + 1) == 0.0


def test_it_is_not_looked_at_each_moment_and_a_kernel_that_says_nothing_is_idle():
    machine = Machine()
    machine.used, machine.there, machine.worked = 200, 200, 1.0
    assert machine.pace.rest_s(0.0) == 0.0
    silent = Pace(lambda: (0, 0), worked_s=lambda: 1.0, now_s=lambda: 1.0)
    assert silent.rest_s(0.0) == 0.0


def test_the_kernel_says_what_is_used_of_all_cores():
    used, there = used_by_others()
    assert 0 <= used <= there
