"""The leader's process says the prices of quotas: when they have moved, and not more often."""

from itertools import pairwise
from types import SimpleNamespace

from policies.rules.quotas.compiled import Quotas
from policies.rules.quotas.measure import Shares
from policies.rules.quotas.quota import Control, Quota
from serve_app.workers.beside import quota_keeper
from serve_app.workers.beside.quota_keeper import QuotaKeeper

QUOTA = Quota("item.brand == 'a'", at_least=0.2)


class Log:
    """What is said, and the newest of it as a fold of the log knows it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.said: list[tuple[float, dict[str, float]]] = []
        self.control: Control | None = None
        self.quotas: dict = {}

    def append(self, record) -> None:
        self.said.append((self.now, record.prices))
        self.control = Control(f"{len(self.said)}-0", record.prices)


def test_prices_are_said_once_a_second_at_most_and_only_when_they_have_moved(monkeypatch):
    log = Log()
    monkeypatch.setattr(quota_keeper, "time", SimpleNamespace(monotonic=lambda: log.now))
    keeper = QuotaKeeper(log, "spec", Quotas([QUOTA]))

    def live(seconds: int, share: float | None) -> int:
        """So many seconds, ten turns of the learner each; how often something was said."""
        before = len(log.said)
        for _ in range(10 * seconds):
            log.now += 0.1
            if share is not None:
                measured = Shares(5, {QUOTA.name: 5 * share})
                keeper.controller.measured(int(1000 * log.now), measured)
            keeper.lead(log, log)
        return len(log.said) - before

    # Nothing of the group is shown, so its price rises; then nobody decides; then the share holds.
    assert 20 <= live(30, 0.0) <= 31
    assert all(later - earlier >= 0.999 for (earlier, _), (later, _) in pairwise(log.said))
    assert all(later != earlier for (_, earlier), (_, later) in pairwise(log.said))
    assert live(2, None) <= 1
    assert live(30, None) == 0
    assert log.said[-1][1][QUOTA.name] > log.said[0][1][QUOTA.name] > 0
