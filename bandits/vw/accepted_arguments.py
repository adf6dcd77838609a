"""Which of VW's arguments a policy may have: those that were found to learn here, as combined here.

A learner of an old log may have any of ``KNOWN``; what somebody brings in has to be among
``ACCEPTED``. Every set of arguments that passes finds the best of three actions and gives a PMF of
any number of actions, on a new model and on an old one (tests/statistical/test_vw_arguments.py
tries them). All else is refused by name.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bandits.errors import SpecError
from bandits.vw.arguments import CLAIMED, SCORED_CB_TYPES, Arity, read_arguments
from bandits.vw.weights import parse_arguments

FIELD = "learner.args"
INTERACTIONS = ("quadratic", "cubic", "interactions", "ignore_linear")
"""Options whose values are first letters of namespaces."""


# What was tried and found to learn from hashed features as from text, to resume, and to predict
# purely. All else is refused: options that touch files, act on text only, print, or crash with
# action-dependent features (--ksvm, --noop). Some that run are refused as well: --dropout predicts
# at random; --sparse_weights, --lrq and --OjaNewton do not resume as they were;
# --large_action_space remembers earlier decisions in the examples; the "PMF" of --regcbopt sums to
# the number of ties.
KNOWN: Mapping[str, Arity] = {
    **CLAIMED,
    **dict.fromkeys(
        (
            "adax",
            "baseline",
            "cb_dro",
            "coin",
            "epsilon_decay",
            "explore_eval",
            "freegrad",
            "ftrl",
            "global_only",
            "greedify",
            "inpass",
            "leave_duplicate_interactions",
            "no_bias_regularization",
            "nounif",
            "permutations",
            "pistol",
            "random_weights",
            "rank_all",
            "regcb",
            "synthcover",
        ),
        "flag",
    ),
    **dict.fromkeys(
        (
            "alg",
            "automl",
            "bag",
            "boosting",
            "cb_dro_alpha",
            "cb_dro_tau",
            "constant",
            "cover",
            "ftrl_alpha",
            "ftrl_beta",
            "gamma",
            "initial_weight",
            "l1",
            "l2",
            "link",
            "loss_function",
            "mellowness",
            "model_count",
            "multiplier",
            "nn",
            "psi",
            "quantile_tau",
            "rnd",
            "rnd_alpha",
            "rnd_invlambda",
            "sparse_l2",
            "synthcoverpsi",
            "synthcoversize",
        ),
        "value",
    ),
    "ignore_linear": "list",
}


@dataclass(frozen=True, slots=True)
class Option:
    """The values that an option takes; a flag has neither numbers nor words.

    ``low`` to ``high``: the numbers it takes, only ``whole`` ones if so. ``words``: the words it
    takes. ``of``: the option without which it would change nothing. ``own``: it is a part of VW's
    own exploration.
    """

    low: float = math.nan
    high: float = math.nan
    whole: bool = False
    words: tuple[str, ...] = ()
    of: str | None = None
    own: bool = False


# At most one of these: no two of them were found to work together.
EXPLORERS = ("first", "softmax", "squarecb", "bag", "cover", "rnd", "synthcover")
SPECIAL = ("regcb", "cb_dro", "baseline", "epsilon_decay")
OPTIMISERS = ("sgd", "ftrl", "coin", "adax")
SGD_RATE = 0.05
SLOW_RATES = (0.0005, 0.05)
"""Learning rates that were found to learn where they stay as they are (``--power_t 0``)."""
RATES = frozenset(("learning_rate", "power_t", "initial_t"))
OWN_RATES = ("regcb", "cover", "cb_dro")
DEFAULT_OPTIMISER = ("adaptive", "normalized", "invariant")
"""VW's own update is all three; any of them alone follows the noise of the last rewards."""

ACCEPTED: Mapping[str, Option] = {
    "cb_explore_adf": Option(),
    **dict.fromkeys(
        ("quiet", "preserve_performance_counters", "holdout_off", *DEFAULT_OPTIMISER), Option()
    ),
    "bit_precision": Option(8, 26, whole=True),
    "random_seed": Option(0, 2**31, whole=True),
    "cb_type": Option(words=("mtr", "dr")),
    **dict.fromkeys(INTERACTIONS, Option()),
    "noconstant": Option(),
    "constant": Option(-1.0, 1.0),
    "initial_weight": Option(-0.3, 0.3),
    "random_weights": Option(),
    "clip_p": Option(0.0, 0.5),
    "l1": Option(0.0, 1e-4),
    "l2": Option(0.0, 1e-4),
    "learning_rate": Option(0.05, 1.0),
    "power_t": Option(0.3, 1.0),
    "initial_t": Option(0.0, 100.0),
    "sgd": Option(),
    "ftrl": Option(),
    "coin": Option(),
    "adax": Option(),
    "ftrl_alpha": Option(0.02, 0.3, of="ftrl"),
    "ftrl_beta": Option(0.0, 1.0, of="ftrl"),
    "epsilon": Option(0.0, 0.9, own=True),
    "first": Option(1, 100_000, whole=True, own=True),
    "softmax": Option(own=True),
    "lambda": Option(0.1, 1000.0, of="softmax", own=True),
    "squarecb": Option(own=True),
    "gamma_scale": Option(1.0, 1e6, of="squarecb", own=True),
    "gamma_exponent": Option(0.0, 1.0, of="squarecb", own=True),
    "regcb": Option(own=True),
    "mellowness": Option(0.0001, 0.01, of="regcb", own=True),
    "cb_min_cost": Option(-1e9, 1e9, of="regcb", own=True),
    "cb_max_cost": Option(-1e9, 1e9, of="regcb", own=True),
    "bag": Option(2, 32, whole=True, own=True),
    "greedify": Option(of="bag", own=True),
    "cover": Option(2, 32, whole=True, own=True),
    "psi": Option(0.0, 0.05, of="cover", own=True),
    "nounif": Option(of="cover", own=True),
    "rnd": Option(1, 16, whole=True, own=True),
    "rnd_alpha": Option(0.01, 1.0, of="rnd", own=True),
    "rnd_invlambda": Option(0.01, 1.0, of="rnd", own=True),
    "synthcover": Option(own=True),
    "synthcoverpsi": Option(0.001, 0.2, of="synthcover", own=True),
    "cb_dro": Option(own=True),
    "cb_dro_alpha": Option(0.01, 0.5, of="cb_dro", own=True),
    "baseline": Option(own=True),
    "global_only": Option(of="baseline", own=True),
    "epsilon_decay": Option(own=True),
}
REFUSED: Mapping[str, str] = {
    "elim": "on a new model its probabilities do not sum to 1",
    "explore_eval": "it learns from some decisions only, and is for evaluating an exploration",
    "boosting": "beside other options it does not work, or settles on a wrong action",
    "automl": "it does not work beside other options",
    "nn": "beside other options it does not work, or settles on a wrong action",
    "freegrad": "its scores become NaN",
    "pistol": "its scores become NaN",
    "loss_function": "only a squared loss, VW's own, has the mean reward for its goal",
    "leave_duplicate_interactions": "it lets one feature count twice",
    "cb_dro_tau": "what it forgets, it learns again and again",
}


def check_arguments(args: str, *, own_exploration: bool, default_reward: float = 0.0) -> None:
    """Refuse arguments that would not learn here, or not do what they say.

    Args:
        args: VW's argument string.
        own_exploration: the policy explores as the arguments say, else by VW's scores.
        default_reward: the reward of a decision that nobody rewarded.

    Raises:
        SpecError: names the option, the reason and what to do.
    """
    # Each option by itself, then which go together, then what the exploration asks of them.
    options = read_arguments(args, KNOWN)
    is_slow = _has_slow_rate(options)
    for name, values in options.items():
        if not (is_slow and name in RATES):
            _check_option(name, values, options)
    _check_combination(options)

    if own_exploration:
        _check_range(options, default_reward)
    else:
        _check_scored(args, options)


def _refuse(message: str) -> SpecError:
    return SpecError(message, FIELD)


def _has_slow_rate(options: Mapping[str, Sequence[str]]) -> bool:
    """Return whether a small rate of VW's own update stays as it is."""
    rates, decays = options.get("learning_rate", ()), options.get("power_t", ())
    if len(rates) != 1 or len(decays) != 1 or "initial_t" in options:
        return False
    try:
        rate, decay = float(rates[0]), float(decays[0])
    except ValueError:
        return False
    is_slow = SLOW_RATES[0] <= rate <= SLOW_RATES[1]
    return decay == 0.0 and is_slow and not {*OPTIMISERS, *OWN_RATES} & options.keys()


def _check_option(name: str, values: Sequence[str], options: Mapping[str, Sequence[str]]) -> None:
    option = ACCEPTED.get(name)
    if option is None:
        raise _refuse(f"--{name} is not taken: {REFUSED.get(name, 'it changes nothing here')}")
    if option.of is not None and option.of not in options:
        raise _refuse(f"--{name} changes nothing without --{option.of}: add that, or leave it out")
    for value in values:
        if option.words and value not in option.words:
            raise _refuse(
                f"--{name} {value} was not found to learn here: there are {', '.join(option.words)}"
            )
        if not math.isnan(option.low):
            _check_number(name, value, option)


def _check_number(name: str, value: str, option: Option) -> None:
    try:
        number = int(value) if option.whole else float(value)
    except ValueError:
        number = math.nan
    if not option.low <= number <= option.high:
        kind = "whole number" if option.whole else "number"
        raise _refuse(
            f"--{name} takes a {kind} from {option.low:g} to {option.high:g} here, not {value}"
        )


def _check_combination(options: Mapping[str, Sequence[str]]) -> None:
    """Refuse options that do not go with one another."""
    updates = [name for name in DEFAULT_OPTIMISER if name in options]
    if updates and len(updates) < len(DEFAULT_OPTIMISER):
        raise _refuse(
            f"--{updates[0]} without the others follows the last rewards only: leave it out (all"
            " are VW's own)"
        )

    explorers = [name for name in (*EXPLORERS, *SPECIAL) if name in options]
    if len(explorers) > 1:
        raise _refuse(f"--{explorers[0]} and --{explorers[1]} do not go together: choose one")

    optimisers = [name for name in OPTIMISERS if name in options] + updates[:1]
    if len(optimisers) > 1:
        raise _refuse(f"--{optimisers[0]} and --{optimisers[1]} do not go together: choose one")
    if {"ftrl", "coin"} & options.keys() and (idle := sorted(RATES & options.keys())):
        raise _refuse(f"--{idle[0]} changes nothing with --{optimisers[0]}: leave it out")
    if "sgd" in options and max(map(float, options.get("learning_rate", ["0.5"]))) > SGD_RATE:
        raise _refuse(
            f"--sgd that learns fast follows the last rewards: add --learning_rate {SGD_RATE}, or"
            " less"
        )

    # What explores by the model's own uncertainty was found to learn with few settings.
    special = [name for name in SPECIAL if name in options]
    if special and (optimisers or options.get("cb_type", ["mtr"]) != ["mtr"]):
        raise _refuse(
            f"--{special[0]} was found to learn here with VW's own optimiser and --cb_type mtr only"
        )
    tuned = [name for name in OWN_RATES if name in options]
    if tuned and (rates := sorted(RATES & options.keys())):
        raise _refuse(
            f"--{tuned[0]} with another --{rates[0]} than VW's own was not found to learn here:"
            " leave it out"
        )

    if "squarecb" in options and options.get("cb_type", ["mtr"]) != ["mtr"]:
        raise _refuse("--squarecb learns with --cb_type mtr only: leave --cb_type out")
    if "cover" in options and "psi" not in options:
        raise _refuse(
            "--cover with VW's psi of 1 stays uniform where rewards are in [0, 1]: add --psi 0.05,"
            " or less"
        )


def _check_range(options: Mapping[str, Sequence[str]], default_reward: float) -> None:
    """Refuse a --regcb that is not told, or told wrong, which rewards there are."""
    if "regcb" not in options:
        return

    if not {"cb_min_cost", "cb_max_cost"} <= options.keys():
        raise _refuse(
            "--regcb has to know what rewards there are, or its PMF stays uniform for ever. Give"
            " their costs, which for rewards in [0, 1] are --cb_min_cost -1 --cb_max_cost 0, and"
            " --mellowness 0.01"
        )
    if "mellowness" not in options:
        raise _refuse(
            "--regcb with VW's mellowness of 0.1 stays unsure of what is 0.3 better: add"
            " --mellowness 0.01"
        )

    # A cost is minus a reward, and there has to be something better than the default.
    low, high = float(options["cb_min_cost"][-1]), float(options["cb_max_cost"][-1])
    if not low < -default_reward <= high:
        raise _refuse(
            f"--cb_min_cost {low:g} --cb_max_cost {high:g} leaves no room for a reward above"
            f" {default_reward:g} (join.default_reward), whose cost is minus that: for rewards in"
            " [0, 1] give -1 and 0"
        )


def _check_scored(args: str, options: Mapping[str, Sequence[str]]) -> None:
    """Refuse arguments without scores, or with VW's own exploration, which would not be asked."""
    for name in options:
        if ACCEPTED[name].own:
            raise SpecError(
                f"learner.args has --{name}, which is VW's own exploration, and is not asked for:"
                f" set exploration to {{kind: vw}}, or leave --{name} out",
                "exploration.kind",
            )

    # Which option it is that makes scores no plain sum of weights.
    if parse_arguments(args) is None:
        kinds = [
            f"cb_type {kind}" for kind in options.get("cb_type", []) if kind not in SCORED_CB_TYPES
        ]
        culprit = next(
            iter([*kinds, *(name for name in options if name not in CLAIMED), "interactions"])
        )
        raise SpecError(
            f"with --{culprit} no scores can be read from VW's weights, and only its own"
            " exploration can act: set exploration to {kind: vw} (its epsilon is --epsilon in"
            f" learner.args), or leave --{culprit} out",
            "exploration.kind",
        )
