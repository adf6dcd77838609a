"""A service ends at the first signal, whoever else in its process would have it."""

import os
import signal
import threading

import pytest

from serve_app.cli.serve import InterruptedStartError, Signals

BOTH = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers_of_before():
    before = {number: signal.getsignal(number) for number in BOTH}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", BOTH)
def test_a_service_that_waits_ends_though_a_library_has_taken_its_signals(number):
    signals = Signals()
    signals.ready()
    for each in BOTH:
        signal.signal(each, signal.SIG_IGN)

    sender = threading.Timer(0.3, os.kill, (os.getpid(), number))
    sender.start()
    signals.wait()
    sender.join()
    assert signals.number == number


def test_the_first_signal_ends_a_start_and_a_second_one_does_nothing():
    signals = Signals()
    with pytest.raises(InterruptedStartError):
        signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    assert signals.number == signal.SIGTERM
