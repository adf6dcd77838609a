"""How often a replica looks for news: seldom where nothing happens."""

import asyncio
import threading
from types import SimpleNamespace

import msgspec

from bandits.log.codec import digest
from serve_app.store.keys import Keys
from serve_app.store.snapshots import QUIET_AFTER_S, QUIET_S, Follower, Head, Published


class Nothing:
    """Nothing is followed beside the snapshots."""

    def ask(self, _pipeline) -> int:
        return 0

    async def take(self, _number, _answers) -> bool:
        return False


def follower(interval_s: float, written_at: float) -> Follower:
    wire = SimpleNamespace(written_at=written_at)
    found = Follower(
        None,
        Keys("home"),
        lambda *_: None,
        Nothing(),
        replica="r",
        interval_s=interval_s,
        wire=wire,
    )
    found._accepted = True
    return found


async def test_who_has_nothing_to_write_looks_seldom_and_who_has_as_often_as_is_set():
    now = asyncio.get_running_loop().time()
    long_ago = now - QUIET_AFTER_S - 1
    assert follower(0.05, now)._rest_s() == 0.05
    rests = [follower(0.05, long_ago)._rest_s() for _ in range(2)]
    assert 0 < min(rests) <= max(rests) <= QUIET_S
    assert follower(2.0, long_ago)._rest_s() == 2.0


async def test_news_are_followed_by_others_and_a_first_snapshot_is_waited_for():
    now = asyncio.get_running_loop().time()
    with_news, first = follower(0.05, 0.0), follower(0.05, 0.0)
    with_news._found_at = now
    first._accepted = False
    assert with_news._rest_s() == first._rest_s() == 0.05


class OneSnapshot:
    """A server that has one snapshot, and nothing else."""

    def __init__(self) -> None:
        self.blob = Published("ridge", "1-0", 0, b"", "spec", "catalogue").encoded
        self.head = msgspec.msgpack.encode(Head(digest(self.blob)))
        self.asked: list[bytes] = []

    def pipeline(self, *, transaction: bool) -> "OneSnapshot":
        del transaction
        self.asked = []
        return self

    def get(self, key: str):
        del key
        self.asked.append(self.head)

    async def execute(self) -> list[bytes]:
        return self.asked

    async def execute_command(self, *_command) -> bytes:
        return self.blob

    async def xadd(self, *_args, **_options) -> None:
        pass


async def test_what_is_followed_beside_goes_on_while_a_snapshot_waits_to_be_swapped_in():
    """An item that is removed meanwhile is offered no more: loading an artifact may take long."""
    looked, enough = 0, threading.Event()

    class Beside(Nothing):
        async def take(self, _number, _answers) -> bool:
            nonlocal looked
            looked += 1
            if looked > 3:
                enough.set()
            return True

    def accept(*_what) -> None:
        assert enough.wait(30)

    found = Follower(OneSnapshot(), Keys("home"), accept, Beside(), replica="r", interval_s=0.001)
    assert await found.step() is True
    assert looked > 3
