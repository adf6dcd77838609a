"""How a user names a policy to evaluate: a word, a line of YAML, or a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from bandits.errors import InvalidFieldError, ReplayError
from bandits.vw.command_line import Command, read_command
from policies.spec import PolicySpec, load_spec
from policies.typed_yaml import as_type, parse_yaml
from simulator.learners.trained import read_trained
from simulator.ope.table_target import TableTarget
from simulator.ope.targets import (
    ApprenticeTarget,
    ColumnTarget,
    FirstTarget,
    GreedyTarget,
    LoggingTarget,
    SourceTarget,
    Target,
    UniformTarget,
)


class _Kind(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    name: str | None = None


class UniformArgument(_Kind, frozen=True, tag="uniform"):
    """Every action alike."""


class FirstArgument(_Kind, frozen=True, tag="first"):
    """The first of the actions, as the log lists them."""


class LoggingArgument(_Kind, frozen=True, tag="logging"):
    """The policy that made the log."""


class GreedyArgument(_Kind, frozen=True, tag="greedy"):
    """The policy that made the log, without its exploration."""


class ApprenticeArgument(_Kind, frozen=True, tag="apprentice"):
    """What the policy of the log would have chosen beside another's choice."""


class TableArgument(_Kind, frozen=True, tag="table", kw_only=True):
    """Probabilities by context and action."""

    path: str


class ColumnArgument(_Kind, frozen=True, tag="column", kw_only=True):
    """The probability of the chosen action is a column of the log."""

    column: str


class SourceArgument(_Kind, frozen=True, tag="source", kw_only=True):
    """A candidate source alone."""

    source: str


class TrainedArgument(_Kind, frozen=True, tag="trained", kw_only=True):
    """A policy that has learned from another log: what ``banditloop train policy`` wrote.

    ``rules`` is the file of a spec whose filter, boosts and page it has instead of its own.
    """

    path: str
    rules: str | None = None


class VwPolicy(_Kind, frozen=True, tag="vw", kw_only=True):
    """Vowpal Wabbit, by ``args`` of its command line.

    ``model`` is a file that it has saved, which it starts from. By a method that learns it learns
    from the log, but for ``-t`` in ``args``. By others it is evaluated as it is, for which it needs
    a model or ``-t``.
    """

    args: str = ""
    model: str | None = None

    @property
    def label(self) -> str:
        """Return its name in a report."""
        return self.name or " ".join(
            ["vw", *self.args.split(), *([self.model] if self.model else [])]
        )

    @property
    def command(self) -> Command:
        """Return what it says to VW."""
        return read_command(self.args, self.model)


PolicyArgument = (
    UniformArgument
    | LoggingArgument
    | GreedyArgument
    | FirstArgument
    | ApprenticeArgument
    | TableArgument
    | ColumnArgument
    | SourceArgument
    | TrainedArgument
    | VwPolicy
)
WORDS: dict[str, Callable[[str], Target]] = {
    "uniform": UniformTarget,
    "logging": LoggingTarget,
    "greedy": GreedyTarget,
    "first": FirstTarget,
    "apprentice": ApprenticeTarget,
}
"""Kinds that are named by a word alone, and what makes them, by their name in a report."""
ParsedPolicy = Target | PolicySpec | VwPolicy


def parse_policy(text: str) -> ParsedPolicy:
    """Parse a word of WORDS, ``{kind: ...}``, or a file with one or a spec.

    Raises:
        ReplayError: it is none of these; names the field.
        SpecError: it is a policy spec with a fault; names the field.
    """
    path = Path(text)
    if text in WORDS:
        raw: Any = {"kind": text}
    elif text.lstrip().startswith("{"):
        raw = _yaml(text, text)
    elif path.is_file():
        try:
            raw = _yaml(path.read_text(encoding="utf-8"), text)
        except UnicodeDecodeError:
            return read_trained(path)

        # A spec's kinds are no kinds of targets; one without a kind is a blend.
        if isinstance(raw, dict) and raw.get("kind") in {None, "blend", "mixture", "rl"}:
            return load_spec(path)
    else:
        raise ReplayError(
            f"{text!r} is no policy: {', '.join(WORDS)}, {{kind: ...}}, or a file", "policy"
        )

    try:
        kind: PolicyArgument = as_type(raw, PolicyArgument)  # type: ignore[arg-type] # a union
    except InvalidFieldError as error:
        raise ReplayError(f"{text}: {error.message}", "policy") from error
    return target_of(kind)


def target_of(kind: PolicyArgument) -> Target | VwPolicy:
    """Return the policy that an argument describes."""
    out: Target | VwPolicy
    match kind:
        case (
            UniformArgument()
            | LoggingArgument()
            | GreedyArgument()
            | FirstArgument()
            | ApprenticeArgument()
        ):
            word = str(kind.__struct_config__.tag)
            out = WORDS[word](kind.name or word)
        case TableArgument():
            out = TableTarget(Path(kind.path), kind.name)
        case ColumnArgument():
            out = ColumnTarget(kind.column, kind.name)
        case SourceArgument():
            out = SourceTarget(kind.name or kind.source, kind.source)
        case TrainedArgument():
            trained = read_trained(Path(kind.path), kind.name)
            name = kind.name or f"{trained.name}, rules of {kind.rules}"
            out = trained.under(load_spec(Path(kind.rules)), name) if kind.rules else trained
        case VwPolicy():
            out = kind
    return out


def _yaml(text: str, what: str) -> Any:
    """Parse YAML; an error names ``what`` it is."""
    try:
        return parse_yaml(text)
    except InvalidFieldError as error:
        raise ReplayError(f"{what}: {error.message}", "policy") from error
