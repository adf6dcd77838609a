"""How often a replica looks for news: seldom where nothing happens."""

import asyncio
from types import SimpleNamespace

from serve_app.store.keys import Keys
from serve_app.store.snapshots import QUIET_AFTER_S, QUIET_S, Follower


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
