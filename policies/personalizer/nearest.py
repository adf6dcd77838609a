"""Arguments of Personalizer's policies that were not found to learn here, as the nearest that were.

Its loops had policies of namespaces that are none here, of other ways to learn from costs, and of
other rates. Such a policy is served as the nearest one that learns, and it is said what is not as
it was asked for. What would explore in another way than it says is not changed: it is refused.
"""

import math
from collections.abc import Sequence
from itertools import product

from bandits.features.namespaces import NAMESPACES
from bandits.vw.accepted_arguments import (
    ACCEPTED,
    DEFAULT_OPTIMISER,
    INTERACTIONS,
    OPTIMISERS,
    OWN_RATES,
    SLOW_RATES,
)
from bandits.vw.arguments import SHORT_NAMES

Argument = tuple[str, str | None]
"""An option's long name, and its value; None of a flag."""
_OF_NAMESPACES = (*INTERACTIONS, "ignore")
_LETTERS = {":", *(name[0] for name in NAMESPACES)}
_CLAMPED = ("learning_rate", "power_t", "initial_t", "l1", "l2")
_PSI = 0.05
"""With Vowpal Wabbit's own, --cover explores all actions alike for ever."""
_OF_REGCB = {"cb_min_cost": "-1", "cb_max_cost": "1", "mellowness": "0.01"}
"""It has to know what rewards there are: in the protocol they are from -1 to 1."""


def nearest_taken(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the nearest arguments that were found to learn, and what is another than was asked.

    Args:
        words: arguments whose options are known, each with its value.
    """
    options = _without_ignored(read_options(words))
    names = {name for name, _ in options}
    changes: list[str] = []
    if "power_t" not in names and _number(dict(options).get("learning_rate")) == 0.0:
        # A rate of nothing does not decay: the least there is stays as small.
        options.append(("power_t", "0"))
    kept: list[Argument] = []
    rates = _slow_rates(options)
    for name, value in options:
        taken = value if value is None else rates.get(name) or _taken(name, value)
        if value is not None and taken is None:
            changes.append(f"--{name} {value}: no namespace here begins so")
            continue
        if taken != value:
            changes.append(f"--{name} {value}: {taken}, the nearest that was found to learn here")
        kept.append((name, taken))

    if "cover" in names and "psi" not in names:
        changes.append(f"--cover: with --psi {_PSI:g}, or it would stay uniform")
        kept.append(("psi", f"{_PSI:g}"))
    if "regcb" in names:
        for name, value in _OF_REGCB.items():
            if name not in names:
                changes.append(f"--regcb: with --{name} {value}, or it would stay uniform")
                kept.append((name, value))
    if not changes and options == read_options(words):
        return list(words), []
    return [word for name, value in kept for word in argument_words(name, value)], changes


def read_options(words: Sequence[str]) -> list[Argument]:
    """Return each option with its value; one with several values stands once for each."""
    options: list[Argument] = []
    for word in words:
        if word.startswith("--") and len(word) > 2:
            name, _, value = word[2:].partition("=")
            options.append((name, value or None))
        elif word[:1] == "-" and word[1:2].isalpha():
            options.append((SHORT_NAMES.get(word[1], word[1]), word[2:] or None))
        elif options[-1][1] is None:
            options[-1] = options[-1][0], word
        else:
            options.append((options[-1][0], word))
    return options


def _without_ignored(options: Sequence[Argument]) -> list[Argument]:
    """Return options without ``--ignore``, which do the same: nothing is made of what it names.

    A namespace that there is none of is left there.
    """
    named = [value for name, value in options if name == "ignore" and value is not None]
    ignored = {letter for letter in "".join(named) if letter in _LETTERS - {":"}}
    if not ignored:
        return list(options)

    left = [name[0] for name in NAMESPACES if name[0] not in ignored]
    kept: list[Argument] = []
    for name, value in options:
        if name == "ignore" and value is not None:
            unknown = "".join(letter for letter in value if letter not in ignored)
            kept += [(name, unknown)] if unknown else []
        elif value is None or name not in INTERACTIONS or name == "ignore_linear":
            kept.append((name, value))
        elif ":" in value:
            choices = [left if letter == ":" else [letter] for letter in value]
            crossed = dict.fromkeys("".join(sorted(each)) for each in product(*choices))
            kept += [(name, each) for each in crossed if not ignored & set(each)]
        elif not ignored & set(value):
            kept.append((name, value))
    return [*kept, *(("ignore_linear", letter) for letter in sorted(ignored))]


def argument_words(name: str, value: str | None) -> list[str]:
    """Return an option as words.

    Args:
        name: its long name.
        value: its value; None of a flag.
    """
    return [f"--{name}"] if value is None else [f"--{name}", value]


def _taken(name: str, value: str) -> str | None:
    """Return the nearest value of an option; None: it is of a namespace that is none here."""
    if name in _OF_NAMESPACES:
        return value if _LETTERS.issuperset(value) else None
    if name == "cb_type" and value in {"ips", "dm"}:
        return "mtr"
    if name in _CLAMPED:
        return _clamped(value, ACCEPTED[name].low, ACCEPTED[name].high)
    return value


def _slow_rates(options: Sequence[Argument]) -> dict[str, str]:
    """Return a rate that stays as it is, where a small one is to: there are such, of their own."""
    given = dict(options)
    if {"initial_t", *OPTIMISERS, *OWN_RATES, *DEFAULT_OPTIMISER} & given.keys():
        return {}
    if given.get("power_t") is None or _number(given["power_t"]) != 0.0:
        return {}
    rate = given.get("learning_rate")
    if rate is None or not 0.0 <= _number(rate) <= SLOW_RATES[1]:
        return {}
    return {
        "learning_rate": _clamped(rate, *SLOW_RATES),
        "power_t": given["power_t"] or "0",
    }


def _clamped(value: str, low: float, high: float) -> str:
    """Return a number within a range; one within it, or of no use at all, as it is written."""
    number = _number(value)
    if low <= number <= high or not 0.0 <= number < math.inf:
        return value
    return f"{min(max(number, low), high):g}"


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")
