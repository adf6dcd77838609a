"""The controller: prices move until the shares come out, whatever rewards are worth."""

import math

import pytest

from policies.rules.quotas.compiled import Quotas
from policies.rules.quotas.controller import Controller
from policies.rules.quotas.measure import Shares
from policies.rules.quotas.quota import Exposure, Quota

NEW = "item.season == 'new'"
DELAY_S = 2


def held(
    quotas: Quotas, share_at, *, seconds: int, each: int = 20, controller=None, after=0
) -> dict:
    """The shares and prices of the last half, of slots whose shares follow from the prices."""
    controller = controller or Controller(quotas)
    waiting = [controller.prices] * DELAY_S
    shares: list[dict[str, float]] = []
    for second in range(seconds):
        waiting.append(controller.prices)
        found = share_at(waiting.pop(0))
        masses = {name: each * share for name, share in found.items()}
        groups = {name: mass for name, mass in masses.items() if name not in quotas.goals}
        of_quotas = {name: mass for name, mass in masses.items() if name in quotas.goals}
        controller.measured(1000 * (after + second), Shares(each, of_quotas, groups))
        shares.append(found)
    last = shares[seconds // 2 :]
    return {name: sum(each[name] for each in last) / len(last) for name in last[0]}


def logistic(gap: float) -> float:
    return 1 / (1 + math.exp(-gap))


@pytest.mark.parametrize("scale", [1e-3, 0.05, 0.2])
@pytest.mark.parametrize(("share", "natural"), [(0.2, 0.02), (0.05, 0.002), (0.7, 0.3)])
def test_a_group_gets_its_share_whatever_the_unit_of_rewards(scale, share, natural):
    quota = Quota(NEW, at_least=share)
    at = math.log(natural / (1 - natural))
    found = held(
        Quotas([quota]),
        lambda prices: {quota.name: logistic(at + prices.get(quota.name, 0) / scale)},
        seconds=1200,
    )
    assert found[quota.name] == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(("share", "natural"), [(0.3, 0.9), (0.05, 0.6)])
def test_a_group_is_kept_below_its_share(share, natural):
    quota = Quota(NEW, at_most=share)
    at = math.log(natural / (1 - natural))
    controller = Controller(Quotas([quota]))
    found = held(
        Quotas([quota]),
        lambda prices: {quota.name: logistic(at + prices.get(quota.name, 0) / 0.1)},
        seconds=1200,
        controller=controller,
    )
    assert found[quota.name] == pytest.approx(share, abs=0.01)
    assert controller.prices[quota.name] < 0


def test_where_a_group_has_its_share_without_a_price_the_price_goes():
    quota = Quota(NEW, at_least=0.2)
    controller = Controller(Quotas([quota]))
    held(Quotas([quota]), lambda _: {quota.name: 0.6}, seconds=600, controller=controller)
    assert controller.prices == {}


def test_a_price_is_never_more_than_its_cap_and_comes_down_again():
    quota = Quota(NEW, at_least=0.5, cap=0.25)
    controller = Controller(Quotas([quota]))
    held(Quotas([quota]), lambda _: {quota.name: 0.1}, seconds=3600, controller=controller)
    assert controller.prices == {quota.name: 0.25}
    assert controller.states[quota.name].capped
    assert controller.states[quota.name].share == pytest.approx(0.1)
    held(
        Quotas([quota]), lambda _: {quota.name: 0.9}, seconds=120, controller=controller, after=3600
    )
    assert controller.prices[quota.name] < 0.125


def test_a_quota_of_which_nothing_could_be_chosen_stays_as_it_is():
    quotas = Quotas([Quota(NEW, at_least=0.2)])
    controller = Controller(quotas)
    before = controller.prices
    for second in range(100):
        controller.measured(1000 * second, Shares(50))
    assert controller.prices == before


def test_each_group_gets_its_floor_and_of_too_many_each_as_much_as_there_is_room():
    quotas = Quotas([], Exposure("provider", 0.1))
    weights = {"a": 0.0, "b": -2.0, "c": -5.0}

    def of(prices):
        odds = {
            name: math.exp(at + prices.get(f"provider={name}", 0) / 0.1)
            for name, at in weights.items()
        }
        return {name: each / sum(odds.values()) for name, each in odds.items()}

    found = held(quotas, of, seconds=2400)
    assert found["b"] >= 0.099
    assert found["c"] == pytest.approx(0.1, abs=0.01)

    weights |= {f"d{at}": -1.0 for at in range(17)}
    found = held(quotas, of, seconds=4000)
    assert min(found.values()) == pytest.approx(0.9 / 20, abs=0.01)


def test_whoever_takes_over_goes_on_from_the_state_that_serves():
    quota, other = Quota(NEW, at_least=0.2), Quota("item.stock > 1", at_most=0.5)
    controller = Controller(Quotas([quota, other], Exposure("provider", 0.1)))
    prices = {quota.name: 0.125, "provider=acme": 0.5}
    controller.obey(prices)
    known = {name: controller.prices[name] for name in prices}
    assert known == pytest.approx(prices)
    assert -0.01 < controller.prices[other.name] < 0


def test_a_price_that_has_hardly_moved_is_no_news():
    quota = Quota(NEW, at_least=0.2)
    controller = Controller(Quotas([quota]))
    assert controller.changed_from({})
    said = controller.prices
    assert not controller.changed_from(said)
    assert not controller.changed_from({quota.name: said[quota.name] * 1.005})
    assert controller.changed_from({quota.name: said[quota.name] * 1.02})
