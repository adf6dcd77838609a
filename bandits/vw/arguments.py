"""Vowpal Wabbit's argument strings: their options, and the values of each."""

from collections.abc import Mapping
from typing import Literal

from bandits.errors import SpecError
from bandits.vw.command_line import OTHER_PROBLEMS

Arity = Literal["flag", "value", "list"]

SHORT_NAMES = {"q": "quadratic", "b": "bit_precision", "l": "learning_rate", "C": "constant"}
DEFAULT_BITS = 18
MAX_BITS = 26  # 256 MB of float32 in a replica, 1 GB in the learner

# Arguments that change what is learned, or how scores become a PMF, but never how a score follows
# from the weights. Not --l1 and --l2: VW then scores with weights it truncates and scales as it
# goes, and does not tell by how much.
CLAIMED: Mapping[str, Arity] = {
    **dict.fromkeys(
        (
            "cb_explore_adf",
            "quiet",
            "preserve_performance_counters",
            "noconstant",
            "sgd",
            "adaptive",
            "invariant",
            "normalized",
            "softmax",
            "squarecb",
            "elim",
            "first_only",
            "holdout_off",
            "strict_parse",
            "chain_hash",
        ),
        "flag",
    ),
    **dict.fromkeys(
        (
            "bit_precision",
            "cb_type",
            "learning_rate",
            "power_t",
            "initial_t",
            "decay_learning_rate",
            "clip_p",
            "epsilon",
            "lambda",
            "gamma_scale",
            "gamma_exponent",
            "first",
            "cb_min_cost",
            "cb_max_cost",
            "random_seed",
            "hash",
            "id",
        ),
        "value",
    ),
    **dict.fromkeys(("quadratic", "cubic", "interactions"), "list"),
}
SCORED_CB_TYPES = {"mtr", "ips", "dm"}  # one model each; dr interleaves two


def read_arguments(args: str, known: Mapping[str, Arity]) -> dict[str, list[str]]:
    """Return the values of each option in an argument string, split as VW's command line splits it.

    Args:
        args: the argument string.
        known: the options that may occur, and what follows each.

    Raises:
        SpecError: an option that is not ``known``, an option without its value, or a word that
            belongs to no option.
    """
    words = args.split()
    options: dict[str, list[str]] = {}
    while words:
        word = words.pop(0)
        if not _is_option(word):
            raise SpecError(f"'{word}' belongs to no option", "learner.args")

        long = word.startswith("--")
        name, _, value = (
            word[2:].partition("=") if long else (SHORT_NAMES.get(word[1], word[1]), "", word[2:])
        )
        arity = known.get(name)
        if arity is None:
            option = f"{'--' if long else '-'}{name}"
            why = OTHER_PROBLEMS.get(name, "is not one of the VW options known to be safe here")
            raise SpecError(f"{option} {why}", "learner.args")
        if (arity == "flag" and value) or word.endswith("="):
            raise SpecError(
                f"'{word}' does not give --{name} a value that it takes", "learner.args"
            )

        values = options.setdefault(name, [])
        if arity == "flag":
            continue
        if not value and not words:
            raise SpecError(f"--{name} needs a value", "learner.args")

        # A list takes all words up to the next option.
        values.append(value or words.pop(0))
        while arity == "list" and words and not _is_option(words[0]):
            values.append(words.pop(0))
    return options


def _is_option(word: str) -> bool:
    """Return whether a word is an option: a negative number is none."""
    if not word.startswith("-") or len(word) == 1:
        return False
    try:
        float(word)
    except ValueError:
        return word != "--"
    return False


def read_bits(options: Mapping[str, list[str]]) -> int:
    """Return the number of bits of a weight's index (``-b``).

    Raises:
        SpecError: not a whole number from 1 to ``MAX_BITS``, or several that disagree.
    """
    given = set(options.get("bit_precision", [])) or {str(DEFAULT_BITS)}
    text = given.pop()
    if given or not (text.isascii() and text.isdecimal() and 1 <= int(text) <= MAX_BITS):
        raise SpecError(f"-b takes one whole number from 1 to {MAX_BITS}", "learner.args")
    return int(text)
