"""Personalizer's service configuration: what of it a spec says, and a spec that says it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec

from bandits.errors import InvalidFieldError, SpecError
from bandits.exploration import EpsilonGreedy, VwExploration
from bandits.log.join_rule import Aggregation
from bandits.vw.accepted_arguments import KNOWN
from bandits.vw.arguments import read_arguments
from bandits.vw.config import VwConfig
from policies.personalizer.apprentice_metrics import ApprenticeModeMetrics
from policies.personalizer.arguments import telling_epsilon, with_epsilon
from policies.personalizer.durations import iso_duration, iso_seconds
from policies.spec import PolicySpec
from policies.spec.checks import admit
from policies.spec.personalizer import MOST_DAYS, PersonalizerSettings

Mode = Literal["Online", "Apprentice", "LoggingOnly"]
Text = str | msgspec.UnsetType | None
WAIT_S = (5.0, 2 * 86400.0)
"""How long a reward is waited for, at least and at most."""
_AGGREGATIONS: Mapping[str, Aggregation] = {
    "earliest": "first",
    "sum": "sum",
    "average": "average",
    "median": "median",
    "min": "min",
    "max": "max",
}
_NAMES = {ours: theirs for theirs, ours in _AGGREGATIONS.items()}
_MODES: Mapping[Mode, Mapping[str, str | msgspec.UnsetType]] = {
    "Online": {"mode": msgspec.UNSET, "learn": msgspec.UNSET},
    "Apprentice": {"mode": "apprentice", "learn": "imitation"},
    "LoggingOnly": {"mode": "apprentice", "learn": "rewards"},
}
_FOR_EVER = -1
_NEVER = "0001-01-01T00:00:00"
"""When a configuration was changed that never was."""
_WITH_MODE = ("rewardWaitTime", "defaultReward", "rewardAggregation")
"""What cannot change together with the learning mode."""


class ServiceConfiguration(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The whole configuration, as it is answered; durations are ISO 8601."""

    reward_wait_time: str
    default_reward: float
    reward_aggregation: str
    exploration_percentage: float
    model_export_frequency: str
    log_mirror_enabled: bool = False
    log_retention_days: int
    last_configuration_edit_date: str
    learning_mode: Mode
    is_auto_optimization_enabled: bool = False
    auto_optimization_frequency: str | msgspec.UnsetType = msgspec.UNSET
    auto_optimization_start_date: str | msgspec.UnsetType = msgspec.UNSET
    model_retrain_days: int
    is_inference_explainability_enabled: bool = False
    latest_apprentice_mode_metrics: ApprenticeModeMetrics | msgspec.UnsetType = msgspec.UNSET


class WantedConfiguration(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A configuration as it is sent: what is optional and left out keeps its value.

    What the service says by itself, and what nobody knows, is passed over.
    """

    reward_wait_time: str
    default_reward: Annotated[float, msgspec.Meta(ge=-1, le=1)]
    reward_aggregation: str
    exploration_percentage: Annotated[float, msgspec.Meta(ge=0, le=1)]
    model_export_frequency: str
    log_retention_days: Annotated[int, msgspec.Meta(ge=-1, le=MOST_DAYS)]
    model_retrain_days: Annotated[int, msgspec.Meta(ge=0, le=MOST_DAYS)]
    learning_mode: Mode | msgspec.UnsetType | None = msgspec.UNSET
    is_auto_optimization_enabled: bool | msgspec.UnsetType | None = msgspec.UNSET
    auto_optimization_frequency: Text = msgspec.UNSET
    auto_optimization_start_date: Text = msgspec.UNSET
    log_mirror_enabled: bool | msgspec.UnsetType | None = msgspec.UNSET
    log_mirror_sas_uri: Text = msgspec.UNSET
    is_inference_explainability_enabled: bool | msgspec.UnsetType | None = msgspec.UNSET


def configuration_of(
    spec: PolicySpec, metrics: ApprenticeModeMetrics | None = None
) -> ServiceConfiguration:
    """Return what a spec says in the terms of Personalizer.

    Args:
        spec: the policy's.
        metrics: what is known of its imitation, if it is an apprentice.
    """
    own = settings_of(spec)
    mode: Mode = "Online"
    if spec.is_apprentice:
        mode = "Apprentice" if spec.learn == "imitation" else "LoggingOnly"

    return ServiceConfiguration(
        reward_wait_time=iso_duration(spec.join.window_s),
        default_reward=spec.join.default_reward,
        reward_aggregation=_NAMES.get(spec.join.aggregation, spec.join.aggregation),
        exploration_percentage=_explored(spec),
        model_export_frequency=iso_duration(own.model_export_frequency_s),
        log_retention_days=(
            _FOR_EVER if own.log_retention_days is msgspec.UNSET else own.log_retention_days
        ),
        last_configuration_edit_date=own.edited or _NEVER,
        learning_mode=mode,
        auto_optimization_frequency=(
            msgspec.UNSET
            if own.auto_optimization_frequency_s is msgspec.UNSET
            else iso_duration(own.auto_optimization_frequency_s)
        ),
        auto_optimization_start_date=own.auto_optimization_start,
        model_retrain_days=own.model_retrain_days,
        is_inference_explainability_enabled=own.explains,
        latest_apprentice_mode_metrics=(
            msgspec.UNSET if metrics is None or mode != "Apprentice" else metrics
        ),
    )


def arguments_of(spec: PolicySpec) -> str:
    """Return the Vowpal Wabbit arguments of a policy: as they were sent, or as it learns.

    Where the configuration was changed since, they say what is explored now.
    """
    own = settings_of(spec).arguments
    if own is not None:
        if isinstance(spec.exploration, EpsilonGreedy):
            return telling_epsilon(own, spec.exploration.epsilon)
        if isinstance(spec.learner, VwConfig) and with_epsilon(own, 0.0) != own:
            said = read_arguments(spec.learner.args, KNOWN).get("epsilon")
            return own if said is None else telling_epsilon(own, float(said[-1]))
        return own
    if isinstance(spec.learner, VwConfig):
        args = spec.learner.args
        if isinstance(spec.exploration, EpsilonGreedy):
            return f"{args} --epsilon {spec.exploration.epsilon:g}"
        return args
    return f"--cb_explore_adf --epsilon {_explored(spec):g}"


def settings_of(spec: PolicySpec) -> PersonalizerSettings:
    """Return what its clients have set that nothing else of a spec says."""
    own = spec.personalizer
    return PersonalizerSettings() if isinstance(own, msgspec.UnsetType) else own


def with_configuration(spec: PolicySpec, wanted: WantedConfiguration) -> PolicySpec:
    """Return a spec that says what a configuration wants.

    Args:
        spec: all the rest, and what the configuration leaves out.
        wanted: the configuration.

    Raises:
        InvalidFieldError, SpecError: ``target`` is the field of the configuration.
    """
    _refuse_missing(wanted)
    wait_s, aggregation = _wait_of(wanted, spec), _aggregation_of(wanted, spec)
    export_s = iso_seconds(wanted.model_export_frequency, "modelExportFrequency")
    if not export_s > 0:
        raise InvalidFieldError("a duration above 0", "modelExportFrequency")

    join = msgspec.structs.replace(
        spec.join,
        window_s=wait_s,
        default_reward=wanted.default_reward,
        aggregation=aggregation,
    )
    own = settings_of(spec)
    settings = msgspec.structs.replace(
        own,
        model_export_frequency_s=export_s,
        log_retention_days=wanted.log_retention_days,
        model_retrain_days=wanted.model_retrain_days,
        auto_optimization_frequency_s=_frequency(wanted, own),
        auto_optimization_start=_start(wanted, own),
        explains=_kept(wanted.is_inference_explainability_enabled, otherwise=own.explains),
        edited=_now(),
    )
    changed = msgspec.structs.replace(spec, join=join, personalizer=settings)
    mode = wanted.learning_mode
    if mode is not None and mode is not msgspec.UNSET:
        changed = _with_mode(changed, mode)
        if mode != configuration_of(spec).learning_mode and join != spec.join:
            raise InvalidFieldError(
                f"the learning mode does not change together with {', '.join(_WITH_MODE)}: change"
                " one, then the other",
                "learningMode",
            )
    try:
        return admit(_exploring(changed, wanted.exploration_percentage))
    except SpecError as error:
        raise SpecError(f"{error.target}: {error.message}", "configuration") from error


def _wait_of(wanted: WantedConfiguration, spec: PolicySpec) -> float:
    """Return how long a reward is waited for; what a spec says already is never refused."""
    wait_s = iso_seconds(wanted.reward_wait_time, "rewardWaitTime")
    if wait_s != spec.join.window_s and not WAIT_S[0] <= wait_s <= WAIT_S[1]:
        raise InvalidFieldError("a reward is waited for 5 s to 2 days", "rewardWaitTime")
    return wait_s


def _aggregation_of(wanted: WantedConfiguration, spec: PolicySpec) -> Aggregation:
    """Return how rewards are put together; what a spec says already is never refused."""
    if wanted.reward_aggregation == spec.join.aggregation:
        return spec.join.aggregation
    aggregation = _AGGREGATIONS.get(wanted.reward_aggregation.lower())
    if aggregation is None:
        known = ", ".join(_AGGREGATIONS)
        raise InvalidFieldError(
            f"rewards are put together by one of {known}, not by {wanted.reward_aggregation!r}",
            "rewardAggregation",
        )
    return aggregation


def _refuse_missing(wanted: WantedConfiguration) -> None:
    """Refuse what there is not here, rather than pass over it."""
    if wanted.is_auto_optimization_enabled is True:
        raise InvalidFieldError(
            "no other policy takes over by itself here: send false, evaluate"
            " (banditloop replay --search) and apply what is better",
            "isAutoOptimizationEnabled",
        )
    if wanted.log_mirror_enabled is True:
        raise InvalidFieldError(
            "the log is archived as Parquet where the service is told to (--archive), and not"
            " mirrored: send false",
            "logMirrorEnabled",
        )


def _kept(given: bool | msgspec.UnsetType | None, *, otherwise: bool) -> bool:
    return given if isinstance(given, bool) else otherwise


def _start(wanted: WantedConfiguration, own: PersonalizerSettings) -> str | msgspec.UnsetType:
    """Return since when a policy would be optimised, if it were: it is told again as it came."""
    sent, field = wanted.auto_optimization_start_date, "autoOptimizationStartDate"
    if not isinstance(sent, str):
        return own.auto_optimization_start
    try:
        datetime.fromisoformat(sent)
    except ValueError as error:
        raise InvalidFieldError(f"a time is as in ISO 8601, not {sent!r}", field) from error
    return sent


def _frequency(wanted: WantedConfiguration, own: PersonalizerSettings) -> float | msgspec.UnsetType:
    """Return how often a policy would be optimised, if it were: it is told again."""
    sent, field = wanted.auto_optimization_frequency, "autoOptimizationFrequency"
    if not isinstance(sent, str):
        return own.auto_optimization_frequency_s
    seconds = iso_seconds(sent, field)
    if not seconds > 0:
        raise InvalidFieldError("a duration above 0", field)
    return seconds


def _with_mode(spec: PolicySpec, mode: Mode) -> PolicySpec:
    return msgspec.structs.replace(spec, **_MODES[mode])


def _explored(spec: PolicySpec) -> float:
    """Return the share of decisions that is spread over all actions alike."""
    spread = 0.0
    if isinstance(spec.exploration, EpsilonGreedy):
        spread = spec.exploration.epsilon
    elif isinstance(spec.learner, VwConfig) and isinstance(spec.exploration, VwExploration):
        given = read_arguments(spec.learner.args, KNOWN).get("epsilon", ["0"])
        spread = float(given[-1])
    return spread if spec.floor == 0 else spread + spec.floor - spread * spec.floor


def _exploring(spec: PolicySpec, share: float) -> PolicySpec:
    """Return a spec of which a share of the decisions is spread over all actions alike.

    An exploration that says no such share goes on above it: the share is the floor.
    """
    if share == _explored(spec):
        return spec
    if isinstance(spec.exploration, EpsilonGreedy):
        return msgspec.structs.replace(spec, exploration=EpsilonGreedy(share), floor=0.0)
    if isinstance(spec.learner, VwConfig) and isinstance(spec.exploration, VwExploration):
        args = with_epsilon(spec.learner.args, share)
        if args != spec.learner.args:
            learner = msgspec.structs.replace(spec.learner, args=args)
            return msgspec.structs.replace(spec, learner=learner, floor=0.0)
    return msgspec.structs.replace(spec, floor=share)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").removesuffix("+00:00")
