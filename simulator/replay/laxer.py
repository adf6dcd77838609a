"""Filters that let through what those of a log took away: how far a log can answer for them."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from bandits.errors import ArchiveError, SpecError
from bandits.log.records import MAX_REMOVED
from policies.archive.archive import ArchiveReader
from policies.rules.cel.reader import parse
from policies.rules.expressions import Node, conjuncts
from policies.rules.filters import FilterRule
from policies.spec import PolicySpec, decode_spec
from simulator.logs.archive.pieces import pieces_of_archives
from simulator.logs.rows import Piece
from simulator.replay.leakage import Doubt


def laxer_filters(targets: Iterable[Any], pieces: Sequence[Piece]) -> dict[str, Doubt]:
    """Return, by policy, why a log cannot answer for its filter.

    One that demands all that the log's demands chooses from what its decisions chose from, or from
    less. Of any other it is not known: what the log's took away is in the records up to a number,
    and what sources knew not to propose is not.

    Args:
        targets: the policies.
        pieces: of the log.
    """
    doubts = {}
    for target in targets:
        spec = getattr(target, "spec", None)
        if isinstance(spec, PolicySpec) and (reason := laxer_filter(spec, pieces)):
            doubts[target.name] = Doubt("weak", reason)
    return doubts


def laxer_filter(spec: PolicySpec, pieces: Sequence[Piece]) -> str:
    """Return why a log cannot answer for a policy's filter; empty if it can.

    Args:
        spec: the policy.
        pieces: of the log.
    """
    laxer = [each for each in _filters(pieces) if not _demands(spec.filter_rule, each)]
    if not laxer:
        return ""
    return (
        f"its filter may let through what the log's ({laxer[0].where}) took away, of which a record"
        f" names {MAX_REMOVED} items at most, and none that sources knew not to propose: log with"
        " the laxer filter, or evaluate one that demands more"
    )


def _filters(pieces: Iterable[Piece]) -> Iterable[FilterRule]:
    """Yield the filters of the specs that archives name."""
    found: dict[str, FilterRule] = {}
    logs = {(str(piece.root), piece.policy): piece for piece in pieces_of_archives(pieces)}
    for piece in logs.values():
        reader = ArchiveReader(piece.root, piece.policy)
        for _, digest in reader.specs():
            try:
                rule = decode_spec(reader.blob(digest)).filter_rule
            except (SpecError, ArchiveError):
                continue
            if rule is not None:
                found[digest] = rule
    return found.values()


def _demands(rule: FilterRule | None, other: FilterRule) -> bool:
    """Return whether a filter surely refuses all that another does."""
    if rule is None:
        return not _terms(other)
    is_strict = rule.unknown == "refuse" or other.unknown == "admit"
    return is_strict and _terms(other) <= _terms(rule)


def _terms(rule: FilterRule) -> frozenset[Node]:
    return frozenset(conjuncts(parse(rule.where, "filter.where"))) - _true()


@cache
def _true() -> frozenset[Node]:
    # The parser of expressions is made when there is one: making it takes half a second.
    return frozenset({parse("true", "filter.where")})
