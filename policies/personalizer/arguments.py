"""Personalizer's policy, which is arguments of Vowpal Wabbit, as a learner and an exploration."""

import math
from typing import NamedTuple

import msgspec

from bandits.errors import SpecError
from bandits.exploration import EpsilonGreedy, VwExploration
from bandits.vw.accepted_arguments import EXPLORERS, KNOWN, SPECIAL
from bandits.vw.arguments import read_arguments
from bandits.vw.command_line import names_a_file, read_command
from bandits.vw.config import VwConfig
from bandits.vw.weights import parse_arguments
from policies.personalizer.nearest import nearest_taken, read_options
from policies.spec import PolicySpec
from policies.spec.checks import admit
from policies.spec.personalizer import SEVERAL_SLOTS, PersonalizerSettings

FIELD = "arguments"
LONGEST = 1024
DEFAULT_ARGUMENTS = "--cb_explore_adf --epsilon 0.2 --power_t 0 -l 0.001 --cb_type mtr -q ::"
"""The policy of a new loop of theirs."""
NO_FILES = "Vowpal Wabbit reads and writes no files here"
_ONE_SLOT = "--cb_explore_adf"
_EPSILON = 0.05
"""Vowpal Wabbit's own."""


class PolicyArguments(NamedTuple):
    """A policy's arguments, taken apart.

    Attributes:
        learner: those of the learner: the nearest that were found to learn here.
        epsilon: what is explored, where a best action is chosen otherwise; None: Vowpal Wabbit
            explores in a way of its own, which is among ``learner``.
        files: options of files that Vowpal Wabbit would read or write, which are left out.
        changes: what is another value than was asked for, in words.
    """

    learner: str
    epsilon: float | None
    files: list[str]
    changes: list[str]


def read_policy_arguments(text: str) -> PolicyArguments:
    """Take apart the arguments of a policy of Personalizer.

    Several slots are decided like one, so what says how many there are is left out.

    Raises:
        SpecError: they are too many, say nothing of exploring, or have an option that is not known.
    """
    if len(text) > LONGEST:
        raise SpecError(f"arguments have at most {LONGEST} characters, not {len(text)}", FIELD)
    words = text.split()
    if SEVERAL_SLOTS in words:
        words = [_ONE_SLOT if word == SEVERAL_SLOTS else word for word in words]
    if _ONE_SLOT not in words:
        raise SpecError(
            f"arguments have {_ONE_SLOT} or {SEVERAL_SLOTS}: --cats, which chooses a number, is"
            " not served here",
            FIELD,
        )

    try:
        command = read_command(" ".join(words))
        options = read_arguments(command.args, {**KNOWN, "ignore": "list"})
    except SpecError as error:
        raise SpecError(error.message, FIELD) from error
    if command.model is not None:
        raise SpecError("a model is imported by itself: leave -i out", FIELD)
    if not command.learns:
        raise SpecError("it would learn nothing: leave -t out", FIELD)
    files = list(filter(names_a_file, command.left_out))

    words, changes = nearest_taken(command.args.split())
    changes += [f"{option}: {NO_FILES}" for option in files]

    # A best action, else any: that follows from the scores, if they can be read from the weights.
    epsilon = _number(options.get("epsilon", [str(_EPSILON)])[-1])
    kept = _without_epsilon(words)
    if not {*EXPLORERS, *SPECIAL} & options.keys() and parse_arguments(kept) is not None:
        return PolicyArguments(kept, epsilon, files, changes)
    return PolicyArguments(" ".join(words), None, files, changes)


def with_arguments(spec: PolicySpec, text: str, *, epsilon: float | None = None) -> PolicySpec:
    """Return a spec that learns and explores as a policy of Personalizer does.

    Args:
        spec: all the rest.
        text: the arguments.
        epsilon: what is explored, in place of what they say.

    Raises:
        SpecError: they are not taken; ``target`` is ``arguments``, and the message says why.
    """
    read = read_policy_arguments(text)
    own = spec.personalizer
    settings = PersonalizerSettings() if isinstance(own, msgspec.UnsetType) else own
    learner, exploration = read.learner, VwExploration() if read.epsilon is None else None
    if exploration is not None and epsilon is not None:
        learner = with_epsilon(learner, epsilon)
    said = read.epsilon if epsilon is None else epsilon

    try:
        return admit(
            msgspec.structs.replace(
                spec,
                learner=VwConfig(learner),
                exploration=exploration or EpsilonGreedy(said or 0.0),
                floor=0.0,
                personalizer=msgspec.structs.replace(settings, arguments=text),
            )
        )
    except SpecError as error:
        raise SpecError(error.message, FIELD) from error


def with_epsilon(args: str, epsilon: float) -> str:
    """Return arguments whose own exploration has this epsilon, if it has any.

    Args:
        args: of a learner that explores by itself.
        epsilon: the probability of any action.
    """
    words = args.split()
    if _without_epsilon(words) == " ".join(words):
        return args
    return f"{_without_epsilon(words)} --epsilon {epsilon:g}"


def telling_epsilon(text: str, epsilon: float) -> str:
    """Return a policy's arguments as they are explored by: with this epsilon, if theirs is another.

    Args:
        text: the arguments, as they were sent.
        epsilon: what is explored now.
    """
    words = text.split()
    said = [value for name, value in read_options(words) if name == "epsilon"]
    if _number((said or [str(_EPSILON)])[-1] or "") == epsilon:
        return text
    return f"{_without_epsilon(words)} --epsilon {epsilon:g}"


def _without_epsilon(words: list[str]) -> str:
    kept: list[str] = []
    for word in words:
        if kept and kept[-1] == "--epsilon":
            kept.pop()
        elif not word.startswith("--epsilon="):
            kept.append(word)
    return " ".join(kept)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0.0 <= number <= 1.0:
        raise SpecError(f"--epsilon takes a number from 0 to 1, not {text!r}", FIELD)
    return number
