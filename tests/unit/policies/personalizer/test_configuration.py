"""Personalizer's configuration and policy as a spec, and back."""

from typing import Any

import msgspec
import pytest

from bandits.errors import BanditloopError, InvalidFieldError, SpecError
from bandits.exploration import EpsilonGreedy, LinTs, VwExploration
from policies.personalizer.arguments import DEFAULT_ARGUMENTS, read_policy_arguments, with_arguments
from policies.personalizer.configuration import (
    WantedConfiguration,
    arguments_of,
    configuration_of,
    settings_of,
    with_configuration,
)
from policies.personalizer.durations import iso_duration, iso_seconds
from policies.spec import PolicySpec, decode_spec

SPEC = with_arguments(PolicySpec("home"), DEFAULT_ARGUMENTS)
WANTED: dict[str, Any] = {
    "rewardWaitTime": "PT10M",
    "defaultReward": 0.0,
    "rewardAggregation": "earliest",
    "explorationPercentage": 0.2,
    "modelExportFrequency": "PT5M",
    "logRetentionDays": 90,
    "modelRetrainDays": 2,
}


def wanted(**changes: Any) -> WantedConfiguration:
    return msgspec.convert({**WANTED, **changes}, WantedConfiguration)


def as_sent(spec: PolicySpec) -> dict[str, Any]:
    return msgspec.json.decode(msgspec.json.encode(configuration_of(spec)))


def test_the_usual_policy_says_the_usual_configuration() -> None:
    said = as_sent(SPEC)
    # Nothing is deleted before somebody sets for how long it is kept.
    assert {name: said[name] for name in WANTED} == {**WANTED, "logRetentionDays": -1}
    assert (said["learningMode"], said["isAutoOptimizationEnabled"]) == ("Online", False)


@pytest.mark.parametrize(
    ("field", "value", "part", "expected"),
    [
        ("rewardWaitTime", "PT04H00M00S", "join.window_s", 14400.0),
        ("defaultReward", -0.5, "join.default_reward", -0.5),
        *(
            ("rewardAggregation", name, "join.aggregation", ours)
            for name, ours in [
                ("earliest", "first"),
                ("sum", "sum"),
                ("average", "average"),
                ("median", "median"),
                ("min", "min"),
                ("max", "max"),
            ]
        ),
        ("explorationPercentage", 0.35, "exploration.epsilon", 0.35),
        ("modelExportFrequency", "PT1M", "personalizer.model_export_frequency_s", 60.0),
        ("logRetentionDays", -1, "personalizer.log_retention_days", -1),
        ("logRetentionDays", 2**31 - 1, "personalizer.log_retention_days", 2**31 - 1),
        *(
            (
                "autoOptimizationFrequency",
                text,
                "personalizer.auto_optimization_frequency_s",
                604800,
            )
            for text in ("P7D", "P07DT00H00M00S")
        ),
        (
            *("autoOptimizationStartDate", "2022-10-25T23:14:43"),
            *("personalizer.auto_optimization_start", "2022-10-25T23:14:43"),
        ),
        ("modelRetrainDays", 0, "personalizer.model_retrain_days", 0),
        ("learningMode", "Apprentice", "learn", "imitation"),
        ("learningMode", "LoggingOnly", "learn", "rewards"),
        ("isInferenceExplainabilityEnabled", True, "personalizer.explains", True),
    ],
)
def test_each_setting_is_a_field_of_the_spec_and_is_told_again(
    field: str, value: Any, part: str, expected: Any
) -> None:
    """And a model that has learned goes on: none of them is of another shape."""
    changed = with_configuration(SPEC, wanted(**{field: value}))
    found: Any = changed
    for step in part.split("."):
        found = getattr(found, step)
    assert found == expected
    told = as_sent(changed)[field]
    assert told == value or iso_seconds(told, field) == iso_seconds(value, field)
    assert changed.model_digest == SPEC.model_digest
    assert decode_spec(changed.encoded).digest == changed.digest


def test_what_is_optional_and_left_out_keeps_its_value() -> None:
    """Or is null; and what only the service says, or nobody knows, is passed over."""
    before = with_configuration(
        SPEC,
        wanted(
            learningMode="LoggingOnly",
            isInferenceExplainabilityEnabled=True,
            autoOptimizationFrequency="P7D",
        ),
    )
    for more in (
        {},
        {"learningMode": None, "isInferenceExplainabilityEnabled": None},
        {"lastConfigurationEditDate": "2022-10-25T23:14:43", "latestApprenticeModeMetrics": {}},
        {"nobodyKnows": 1, "isAutoOptimizationEnabled": False, "logMirrorEnabled": False},
    ):
        after = with_configuration(before, wanted(**more))
        assert (after.mode, after.learn) == ("apprentice", "rewards")
        assert as_sent(after)["isInferenceExplainabilityEnabled"] is True
        assert as_sent(after)["autoOptimizationFrequency"] == "P7D"


@pytest.mark.parametrize(
    ("changes", "target"),
    [
        ({"rewardWaitTime": "PT4S"}, "rewardWaitTime"),
        ({"rewardWaitTime": "P3D"}, "rewardWaitTime"),
        ({"rewardWaitTime": "10 minutes"}, "rewardWaitTime"),
        ({"rewardAggregation": "mode"}, "rewardAggregation"),
        ({"modelExportFrequency": "PT0S"}, "modelExportFrequency"),
        ({"isAutoOptimizationEnabled": True}, "isAutoOptimizationEnabled"),
        ({"autoOptimizationFrequency": "weekly"}, "autoOptimizationFrequency"),
        ({"autoOptimizationFrequency": "PT0S"}, "autoOptimizationFrequency"),
        ({"autoOptimizationStartDate": "soon"}, "autoOptimizationStartDate"),
        ({"logMirrorEnabled": True}, "logMirrorEnabled"),
        ({"learningMode": "Apprentice", "defaultReward": 0.1}, "learningMode"),
        ({"learningMode": "LoggingOnly", "rewardWaitTime": "PT1H"}, "learningMode"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(changes: dict[str, Any], target: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        with_configuration(SPEC, wanted(**changes))
    assert caught.value.target == target


@pytest.mark.parametrize(
    "changes",
    [{"defaultReward": 1.5}, {"explorationPercentage": 20}, {"logRetentionDays": -2}],
)
def test_what_is_out_of_range_is_not_decoded(changes: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError, match=next(iter(changes))):
        wanted(**changes)


@pytest.mark.parametrize("join", [{"window_s": 0.3}, {"window_s": 7 * 86400.0}])
def test_what_is_told_can_be_sent_back(join: dict[str, Any]) -> None:
    """Also where a file says what no client could set; something else is refused all the same."""
    spec = msgspec.structs.replace(SPEC, join=msgspec.structs.replace(SPEC.join, **join))
    told = as_sent(spec)
    assert with_configuration(spec, wanted(**told)).join == spec.join
    with pytest.raises(InvalidFieldError):
        with_configuration(spec, wanted(**{**told, "rewardWaitTime": "PT1S"}))


def test_any_exploration_takes_a_share_of_all_actions() -> None:
    """Where an exploration says none itself, it is the floor below it."""
    thompson = PolicySpec("home", exploration=LinTs())
    assert as_sent(thompson)["explorationPercentage"] == 0.01
    assert with_configuration(thompson, wanted(explorationPercentage=0.3)).floor == 0.3
    bag = with_arguments(SPEC, "--cb_explore_adf --bag 5 --epsilon 0.1")
    assert isinstance(bag.exploration, VwExploration)
    assert as_sent(bag)["explorationPercentage"] == 0.1
    changed = with_configuration(bag, wanted(explorationPercentage=0.25))
    assert as_sent(changed)["explorationPercentage"] == 0.25


@pytest.mark.parametrize(
    ("arguments", "learner", "exploration"),
    [
        (
            "--cb_explore_adf --epsilon 0.20000000298023224 --power_t 0 -l 0.001 -q ::",
            "--cb_explore_adf --power_t 0 -l 0.001 -q ::",
            EpsilonGreedy(0.20000000298023224),
        ),
        ("--ccb_explore_adf --epsilon=0.1", "--cb_explore_adf", EpsilonGreedy(0.1)),
        ("--cb_explore_adf --quiet", "--cb_explore_adf", EpsilonGreedy(0.05)),
        ("--cb_explore_adf --squarecb", "--cb_explore_adf --squarecb", VwExploration()),
        (
            "--cb_explore_adf --cb_type dr --epsilon 0.3",
            "--cb_explore_adf --cb_type dr --epsilon 0.3",
            VwExploration(),
        ),
    ],
)
def test_arguments_are_a_learner_and_an_exploration(
    arguments: str, learner: str, exploration: Any
) -> None:
    spec = with_arguments(PolicySpec("home"), arguments)
    assert (spec.learner.args, spec.exploration, spec.floor) == (learner, exploration, 0.0)
    assert spec.personalizer.arguments == arguments


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--cats 4 --min_value 0", "cats"),
        ("", "cb_explore_adf"),
        ("--cb_explore_adf --cb_type sm", "cb_type"),
        ("--cb_explore_adf --bag 3 -l -1", "learning_rate"),
        ("--cb_explore_adf --l1 nan", "l1"),
        ("--cb_explore_adf --nonsense", "nonsense"),
        ("--cb_explore_adf -i model.vw", "imported by itself"),
        ("--cb_explore_adf -t", "learn nothing"),
        *(
            (f"--cb_explore_adf --epsilon {odd}", "a number from 0 to 1")
            for odd in ("much", "2", "-1", "nan", "inf", "-0.01")
        ),
        ("--cb_explore_adf --bag 5 --epsilon=1.5", "a number from 0 to 1"),
        ("--cb_explore_adf " + "-q cf " * 200, "at most 1024"),
    ],
)
def test_arguments_that_are_not_taken_are_named(arguments: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        with_arguments(PolicySpec("home"), arguments)
    assert caught.value.target == "arguments"


RECORDED = (
    "--cb_explore_adf --quadratic GT --quadratic MR --quadratic GR --quadratic ME --quadratic OT"
    " --quadratic OE --quadratic OR --quadratic MS --quadratic GX --ignore A --cb_type ips"
    " --epsilon 0.2"
)
"""A policy that Microsoft's own tests set."""


@pytest.mark.parametrize(
    ("arguments", "learner", "changed"),
    [
        (RECORDED, "--cb_explore_adf --cb_type mtr", 11),
        (
            "--cb_explore_adf --power_t 0 -l 1E-05 --cb_type mtr -q :: --epsilon 0.2",
            "--cb_explore_adf --power_t 0 --learning_rate 0.0005 --cb_type mtr --quadratic ::",
            1,
        ),
        (
            "--cb_explore_adf --epsilon 0.2 --cover 3",
            "--cb_explore_adf --epsilon 0.2 --cover 3 --psi 0.05",
            1,
        ),
        (
            "--cb_explore_adf --epsilon 0.2 --l1 1E-07",
            "--cb_explore_adf --epsilon 0.2 --l1 1E-07",
            0,
        ),
        ("--cb_explore_adf --l2=1 -l0.001", "--cb_explore_adf --l2 0.0001 --learning_rate 0.05", 2),
        (
            "--cb_explore_adf --power_t 0 -l 0.5",
            "--cb_explore_adf --power_t 0.3 --learning_rate 0.5",
            1,
        ),
        ("--cb_explore_adf -q cf uf", "--cb_explore_adf --quadratic cf", 1),
        ("--cb_explore_adf --cb_type dm", "--cb_explore_adf --cb_type mtr", 1),
        (
            "--cb_explore_adf --regcb",
            "--cb_explore_adf --regcb --cb_min_cost -1 --cb_max_cost 1 --mellowness 0.01",
            3,
        ),
        (
            "--cb_explore_adf --regcb --cb_min_cost -2 --cb_max_cost 0",
            "--cb_explore_adf --regcb --cb_min_cost -2 --cb_max_cost 0 --mellowness 0.01",
            1,
        ),
        ("--cb_explore_adf -l 0", "--cb_explore_adf --learning_rate 0.0005 --power_t 0", 1),
        (
            "--cb_explore_adf --power_t 0 -l 0.0",
            "--cb_explore_adf --power_t 0 --learning_rate 0.0005",
            1,
        ),
        (
            "--cb_explore_adf -q :: --ignore csi",
            "--cb_explore_adf --quadratic ff --ignore_linear c --ignore_linear i --ignore_linear s",
            0,
        ),
        (
            "--cb_explore_adf -q cf --ignore=cA -q if",
            "--cb_explore_adf --quadratic if --ignore_linear c",
            1,
        ),
    ],
)
def test_arguments_that_can_be_served_nearly_are_and_it_is_said_what_is_not_as_asked(
    arguments: str, learner: str, changed: int
) -> None:
    """They are told again as they were sent; what is explored is never another."""
    spec = with_arguments(PolicySpec("home"), arguments)
    args = spec.learner.args
    if isinstance(spec.exploration, EpsilonGreedy):
        assert spec.exploration.epsilon == (0.2 if "--epsilon" in arguments else 0.05)
    assert args == learner
    assert arguments_of(spec) == arguments
    assert len(read_policy_arguments(arguments).changes) == changed
    assert decode_spec(spec.encoded).digest == spec.digest


@pytest.mark.parametrize(
    ("arguments", "one_slot"),
    [(None, False), (DEFAULT_ARGUMENTS, True), ("--ccb_explore_adf -q ::", False)],
)
def test_only_a_policy_that_was_set_says_how_many_slots_it_decides(
    arguments: str | None, one_slot: bool
) -> None:
    spec = PolicySpec("home") if arguments is None else with_arguments(SPEC, arguments)
    assert settings_of(spec).has_one_slot is one_slot


def test_the_epsilon_of_the_configuration_can_stand_in_for_that_of_the_arguments() -> None:
    assert with_arguments(SPEC, DEFAULT_ARGUMENTS, epsilon=0.4).exploration == EpsilonGreedy(0.4)
    assert read_policy_arguments(DEFAULT_ARGUMENTS).epsilon == 0.2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--cb_explore_adf --epsilon 0.2 -q ::", "--cb_explore_adf -q :: --epsilon 0.4"),
        ("--cb_explore_adf --epsilon=0.2", "--cb_explore_adf --epsilon 0.4"),
        ("--cb_explore_adf -q ::", "--cb_explore_adf -q :: --epsilon 0.4"),
        ("--cb_explore_adf --bag 5 --epsilon 0.1", "--cb_explore_adf --bag 5 --epsilon 0.4"),
        ("--cb_explore_adf --squarecb", "--cb_explore_adf --squarecb"),
        ("--cb_explore_adf --epsilon 0.4 -q ::", "--cb_explore_adf --epsilon 0.4 -q ::"),
    ],
)
def test_a_policy_tells_what_is_explored_since_the_configuration_was_changed(
    arguments: str, told: str
) -> None:
    """Else as it was sent; an exploration without an epsilon goes on above a floor."""
    spec = with_arguments(SPEC, arguments)
    assert arguments_of(spec) == arguments
    changed = with_configuration(spec, wanted(explorationPercentage=0.4))
    assert arguments_of(changed) == told
    assert as_sent(changed)["explorationPercentage"] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("text", "seconds", "said"),
    [
        ("PT10M00S", 600, "PT10M"),
        ("P28DT00H00M00S", 28 * 86400, "P28D"),
        ("PT05S", 5, "PT5S"),
        ("PT01.5S", 1.5, "PT1.5S"),
        ("PT90M", 5400, "PT1H30M"),
        ("P1DT1H1M1S", 90061, "P1DT1H1M1S"),
        ("P1W", 7 * 86400, "P7D"),
        ("P0Y0M0DT0H10M0S", 600, "PT10M"),
        ("PT0S", 0, "PT0S"),
    ],
)
def test_durations_are_read_as_clients_write_them(text: str, seconds: float, said: str) -> None:
    assert iso_seconds(text, "f") == seconds
    assert iso_duration(seconds) == said


@pytest.mark.parametrize("text", ["", "10", "PT", "P1M", "P0M", "P1Y", "-PT5S", "PT10X"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(BanditloopError) as caught:
        iso_seconds(text, "rewardWaitTime")
    assert caught.value.target == "rewardWaitTime"
