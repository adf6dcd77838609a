"""Policies that may be better than one of Personalizer: one part of its arguments is another.

As Personalizer did, first with what features are crossed (``Inter``), then, with the best of that,
how fast is learned and how much explored (``Hyper``).
"""

from collections.abc import Mapping

from bandits.errors import SpecError
from bandits.vw.accepted_arguments import INTERACTIONS
from bandits.vw.config import VwConfig
from policies.personalizer.arguments import read_policy_arguments, with_arguments, with_epsilon
from policies.personalizer.nearest import argument_words, read_options
from policies.spec import PolicySpec

_CROSSED: Mapping[str, str] = {"none": "", "cf-ci": "-q cf -q ci", "all": "-q ::"}
_RATES: Mapping[str, str] = {
    "usual": "",
    "0.005": "--power_t 0 -l 0.005",
    "0.05": "--power_t 0 -l 0.05",
}
_OF_RATES = ("learning_rate", "power_t", "initial_t")
_LEAST_EPSILON = 0.02
CURRENT = "Inter-current"


def crossed_otherwise(arguments: str) -> dict[str, str]:
    """Return policies by name that cross other features, and the same one.

    Args:
        arguments: of a policy.
    """
    crossings = (*INTERACTIONS, "ignore")
    made = {f"Inter-{name}": _with(arguments, crossings, words) for name, words in _CROSSED.items()}
    return _different({CURRENT: arguments, **made})


def learning_otherwise(arguments: str) -> dict[str, str]:
    """Return policies by name that learn faster or slower, or explore less; not the same one.

    Args:
        arguments: of a policy.
    """
    made = {f"Hyper-{name}": _with(arguments, _OF_RATES, words) for name, words in _RATES.items()}
    said = dict(read_options(arguments.split())).get("epsilon")
    epsilon = read_policy_arguments(arguments).epsilon if said is None else float(said)
    if epsilon is not None and epsilon / 2 >= _LEAST_EPSILON:
        less = with_epsilon(arguments if said else f"{arguments} --epsilon 1", epsilon / 2)
        made[f"Hyper-epsilon-{epsilon / 2:g}"] = less
    found = _different({CURRENT: arguments, **made})
    del found[CURRENT]
    return found


def _with(arguments: str, without: tuple[str, ...], words: str) -> str:
    """Return arguments without some options, and with others instead."""
    kept = [
        word
        for name, value in read_options(arguments.split())
        if name not in without
        for word in argument_words(name, value)
    ]
    return " ".join([*kept, *words.split()])


def _different(made: Mapping[str, str]) -> dict[str, str]:
    """Return those that are policies, of two that do the same the first."""
    found: dict[str, str] = {}
    seen: set[tuple[object, ...]] = set()
    for name, arguments in made.items():
        try:
            spec = with_arguments(PolicySpec("candidate"), arguments)
        except SpecError:
            continue
        options = (
            read_options(spec.learner.args.split()) if isinstance(spec.learner, VwConfig) else ()
        )
        does = frozenset(options), spec.exploration
        if does not in seen:
            seen.add(does)
            found[name] = arguments
    return found
