"""Sources as actions: the marginal that is logged, and the source that is credited."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fakes import SALT, FakeLog, FakeSource, fresh_ranker

from bandits.decide import decide
from bandits.exploration import Greedy, Softmax, with_floor
from bandits.log.codec import decode, encode
from bandits.log.join import JoinRule
from bandits.log.records import RewardRecord, TickRecord
from bandits.types import ActionSet, Context
from policies.decisions.mixture import Mixture, source_actions
from policies.requests import ActionRequest, RankRequest
from policies.spec import PolicySpec, RemoteSource

NAN = float("nan")
IDS = ("a", "b", "c", "d")
SOURCE_PMF = {"cf": 0.6, "deep": 0.3, "popular": 0.1}


class Over:
    """A fixed PMF over sources, renormalised over those that are left."""

    def pmf(self, context, actions):
        weights = np.array([SOURCE_PMF[name] for name in actions.ids])
        return weights / weights.sum()


def action_set(**scores) -> ActionSet:
    columns = {source: np.array(values, np.float32) for source, values in scores.items()}
    count = len(next(iter(columns.values())))
    return ActionSet(IDS[:count], scores=columns)


ACTIONS = action_set(cf=[2, 1, NAN, NAN], deep=[NAN, 1, 1, NAN], popular=[0, 0, 0, 3])
MIXTURE = Mixture(Over(), Softmax(temperature=0.7), 0.1)

COLUMNS = st.lists(st.one_of(st.just(NAN), st.floats(-5, 5)), min_size=4, max_size=4)


def marginal(actions: ActionSet, within, floor: float) -> np.ndarray:
    """By enumeration of the pairs (source, item)."""
    total = np.zeros(len(actions))
    weight = sum(
        SOURCE_PMF[s] for s, values in actions.scores.items() if not np.isnan(values).all()
    )
    for source, values in actions.scores.items():
        present = [k for k in range(len(actions)) if not np.isnan(values[k])]
        if not present:
            continue
        pmf = np.zeros(len(actions))
        pmf[present] = within.pmf(values[present].astype(np.float64), 0)
        for k in range(len(actions)):
            total[k] += SOURCE_PMF[source] / weight * ((1 - floor) * pmf[k] + floor / len(actions))
    return total


@settings(max_examples=100)
@given(
    COLUMNS,
    COLUMNS,
    COLUMNS,
    st.sampled_from([0.0, 0.2, 1.0]),
    st.sampled_from([Softmax(), Greedy()]),
)
def test_the_pmf_is_the_marginal_over_the_sources(cf, deep, popular, floor, within):
    actions = action_set(cf=cf, deep=deep, popular=popular)
    pmf = Mixture(Over(), within, floor).pmf(Context(), actions)
    if all(np.isnan(values).all() for values in actions.scores.values()):
        assert pmf.tolist() == [0.25] * 4
        return
    assert pmf == pytest.approx(marginal(actions, within, floor), abs=1e-12)
    assert abs(pmf.sum() - 1) <= 1e-12
    assert pmf.min() >= floor / 4 * (1 - 1e-12)


def test_a_source_without_candidates_drops_out():
    actions = action_set(cf=[1, 2], deep=[NAN, NAN], popular=[0, 0])
    assert source_actions(actions).ids == ("cf", "popular")
    expected = (0.6 * Softmax().pmf(np.array([1.0, 2.0]), 0) + 0.1 * np.full(2, 0.5)) / 0.7
    assert Mixture(Over(), Softmax(), 0.0).pmf(Context(), actions) == pytest.approx(expected)


def test_credited_sources_are_distributed_as_the_source_pmf_whatever_item_was_drawn():
    """5,000 decisions: each source's share within 4.5 standard errors (false alarm 2e-5 in all)."""
    counts = dict.fromkeys(SOURCE_PMF, 0)
    draws = 5_000
    for i in range(draws):
        decision = decide(MIXTURE, Context(), ACTIONS, event_id=str(i), salt=SALT, name="m")
        credit = MIXTURE.credit(Context(), ACTIONS, decision, salt=SALT, name="m")
        counts[credit.sources[credit.credited[0]]] += 1
    for source, p in SOURCE_PMF.items():
        assert abs(counts[source] / draws - p) <= 4.5 * np.sqrt(p * (1 - p) / draws)


def test_every_slot_of_a_slate_has_its_own_source_pmf():
    """Once ``a`` and ``b`` are taken, cf has only its share of the floor left: it drops out."""
    only = action_set(cf=[2, 1, NAN, NAN], deep=[NAN, 1, 1, NAN])
    mixture = Mixture(Over(), Greedy(), 0.0)
    decision = decide(mixture, Context(), only, event_id="e", salt=SALT, slots=3)
    credit = mixture.credit(Context(), only, decision, salt=SALT, name="")
    for slot, pmf in enumerate(credit.pmfs()):
        left = [k for k in range(4) if k not in decision.chosen[:slot]]
        names = source_actions(only.take(left)).ids
        expected = [
            SOURCE_PMF[s] / sum(SOURCE_PMF[n] for n in names) if s in names else 0.0
            for s in credit.sources
        ]
        assert pmf == pytest.approx(expected)
        chosen = only.scores[credit.sources[credit.credited[slot]]][decision.chosen[slot]]
        # without a floor only a source that proposes the item is credited
        assert not np.isnan(chosen)


def test_the_pmf_does_not_depend_on_the_order_of_the_actions():
    order = [2, 0, 3, 1]
    moved = MIXTURE.pmf(Context(), ACTIONS.take(order))
    assert moved == pytest.approx(MIXTURE.pmf(Context(), ACTIONS)[order], abs=1e-15)


SPEC = PolicySpec(
    "home",
    kind="mixture",
    sources=[RemoteSource("cf", "http://x"), RemoteSource("deep", "http://x")],
    join=JoinRule(window_s=1),
    floor=0.1,
)
SOURCES = [FakeSource("cf", {"a": 3.0, "b": 2.0}), FakeSource("deep", {"b": 1.0, "c": 0.5})]


async def test_the_source_learner_trains_with_the_probability_of_the_credited_source():
    ranker, log = fresh_ranker(SPEC, SOURCES), FakeLog(SPEC)
    record = await ranker.rank(RankRequest(event_id="e", user_id="u", slots=2))
    log.blobs[record.catalogue] = ranker.offering.catalogue.encoded
    entry = log.append(decode(encode(record)), at=2)
    log.append(RewardRecord("e", 1.0), at=3)
    log.append(TickRecord(), at=2002)
    fold = log.fold()
    assert fold.learned == 2
    (joined,) = _joined(fold, log, entry.id)
    for slot, interaction in enumerate(fold.interactions(joined)):
        credited = record.credit.sources[record.credit.credited[slot]]
        assert interaction.actions.ids[interaction.chosen] == credited
        assert interaction.propensity == record.credit.pmfs()[slot, record.credit.credited[slot]]
        assert set(interaction.actions.ids) <= {"cf", "deep"}


def _joined(fold, log, position):
    join = type(fold.join)(lambda _: SPEC.join)
    return [
        joined
        for entry in log.entries
        for joined in join.apply(entry)
        if joined.position == position
    ]


async def test_explicit_actions_without_scores_are_chosen_uniformly_and_teach_nothing():
    ranker = fresh_ranker(SPEC, SOURCES)
    record = await ranker.rank(RankRequest(actions=[ActionRequest("x"), ActionRequest("y")]))
    assert record.pmfs().tolist() == [[0.5, 0.5]]
    assert record.credit is None


@pytest.mark.parametrize("event", range(10))
async def test_a_slate_that_runs_out_of_scored_actions_still_makes_a_valid_record(event):
    """Without a source for the last slots nothing is credited; the log takes the decision."""
    ranker = fresh_ranker(SPEC, SOURCES)
    actions = [ActionRequest("x", scores={"cf": 1.0}), ActionRequest("y"), ActionRequest("z")]
    record = await ranker.rank(RankRequest(event_id=f"e{event}", actions=actions, slots=3))
    again = decode(encode(record))
    assert again == record
    log = FakeLog(SPEC)
    log.blobs[record.catalogue] = ranker.offering.catalogue.encoded
    log.append(again, at=2)
    log.append(TickRecord(), at=2002)
    assert log.fold().join.counts["closed"] == 1


def test_within_and_floor_compose_as_everywhere():
    """One source: the mixture is its own exploration with the floor."""
    actions = action_set(cf=[2, 1, 0, -1])
    expected = with_floor(Softmax(temperature=0.7).pmf(np.array([2.0, 1, 0, -1]), 0), 0.1)
    assert MIXTURE.pmf(Context(), actions) == pytest.approx(expected, abs=1e-15)


def test_a_mixture_of_another_spec_is_another_record():
    assert msgspec.structs.replace(SPEC, floor=0.2).digest != SPEC.digest
