"""What a spec says of signals: weights, windows and ways of adding up, and what it may not say."""

import pytest

from bandits.errors import SpecError
from bandits.log.join_rule import SignalledRule, SignalRule
from policies.spec import PolicySpec, decode_spec, spec_of

GIVEN = {
    "name": "home",
    "join": {"window_s": 60, "aggregation": "last"},
    "signals": {"click": 1, "purchase": {"weight": 10, "window": "7d", "aggregation": "sum"}},
}
VW = {
    "learner": {"kind": "vw", "args": "--cb_explore_adf -b 10"},
    "exploration": {"kind": "epsilon_greedy"},
}


def with_signals(signals, **fields) -> PolicySpec:
    return spec_of({**GIVEN, "signals": signals, **fields})


def test_a_weight_alone_joins_as_the_spec_says_and_the_longest_window_is_the_decisions():
    spec = spec_of(GIVEN)
    assert isinstance(spec.rule, SignalledRule)
    assert spec.rule.window_s == 7 * 86400
    assert spec.rule.signals == {
        "": SignalRule(1.0, 60_000, "last"),
        "click": SignalRule(1.0, 60_000, "last"),
        "purchase": SignalRule(10.0, 7 * 86_400_000, "sum"),
    }
    again = decode_spec(spec.encoded)
    assert again.rule == spec.rule
    assert again.digest == spec.digest


def test_without_signals_the_rule_is_the_join_itself_and_the_bytes_are_as_before():
    spec = spec_of({"name": "home"})
    assert spec.rule is spec.join
    assert b"signals" not in spec.encoded


def test_weights_change_the_spec_and_not_its_model():
    one, other = spec_of(GIVEN), with_signals({"click": 2})
    assert one.digest != other.digest
    assert one.model_digest == other.model_digest


def test_what_a_change_does_is_not_part_of_what_is_logged():
    spec, told = spec_of(GIVEN), spec_of({**GIVEN, "on_change": "relearn"})
    assert told.digest == spec.digest


@pytest.mark.parametrize(
    ("signals", "target", "said"),
    [
        ({}, "signals", "length"),
        ({"Click": 1}, "signals", "match"),
        ({"reward": 1}, "signals.reward", "is taken"),
        ({"shown": 1}, "signals.shown", "is taken"),
        ({"click": 1001}, "signals", "1000"),
        ({"click": {"weight": 1, "window": "soon"}}, "signals.click.window", "soon"),
        ({"click": {"weight": 1, "window": "0s"}}, "signals.click.window", "above 0"),
        ({"click": {"weight": 1, "window": "31d"}}, "signals.click.window", "30d"),
        ({"click": {"window": "1d"}}, "signals", "weight"),
        ({f"s{number}": 1 for number in range(33)}, "signals", "32"),
    ],
)
@pytest.mark.parametrize("learner", [{}, VW, {"learner": {"kind": "ridge", "slot_biases": 3}}])
def test_a_signal_that_cannot_be_is_refused_by_name(signals, target, said, learner):
    with pytest.raises(SpecError, match=said) as refused:
        with_signals(signals, **learner)
    assert str(refused.value.target).startswith(target)


def test_a_learner_that_cannot_correct_waits_for_all_signals():
    with pytest.raises(SpecError, match="at_close"):
        with_signals({"click": 1}, join={"learn": "as_it_arrives"}, **VW)
    assert with_signals({"click": 1}, **VW).rule.learn == "at_close"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "home", "on_change": "keep"}, "set signals"),
        ({**GIVEN, **VW, "on_change": "relearn", "partitions": 2}, "partitions to 1"),
    ],
)
def test_nothing_is_learned_anew_where_it_cannot_be(fields, said):
    with pytest.raises(SpecError, match=said) as refused:
        spec_of(fields)
    assert refused.value.target == "on_change"


def test_repeat_knows_signals_as_what_users_do():
    spec = spec_of({**GIVEN, "profile": {}, "repeat": {"purchased": "never", "click": "never"}})
    assert spec.rule.window_s > 0
    profile = {"types": {"view": 1}}
    told = with_signals({"hide": -1}, profile=profile, repeat={"hide": "never", "reward": "never"})
    assert told.signals == {"hide": -1.0}
    with pytest.raises(SpecError, match="nobody does 'share'"):
        with_signals({"hide": -1}, profile=profile, repeat={"share": "never"})
