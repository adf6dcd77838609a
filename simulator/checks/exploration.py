"""Does the policy still explore? Without exploration it learns nothing new, and its log supports no other policy."""

import math
from collections.abc import Iterator

import numpy as np

from bandits.records import DecisionRecord, LogEntry
from simulator.checks.findings import Finding, Severity, exceeds, found, nothing, percent

CERTAIN = (0.01, 0.2)
"""Shares of the decisions with one possible action above which they are a warning, and a failure."""
NEARLY_CERTAIN, OFTEN = 0.99, 0.9
IMPOSSIBLE = 0.05
"""Share of the actions that have no chance, above which they are a warning."""
USEFUL = 0.01
"""Effective share of the decisions for the uniform policy, below which the log is of little use to any other."""


class Exploration:
    """Looks at the first slot of decisions that had a choice. Holdouts are fixed by intention and left out."""

    def __init__(self) -> None:
        self._decisions = self._certain = self._nearly = self._impossible = self._actions = 0
        self._entropy = self._weight = self._weight_squares = 0.0

    def add(self, entry: LogEntry) -> None:
        """Look at a decision's first PMF."""
        record = entry.record
        if not isinstance(record, DecisionRecord) or record.holdout or len(record.action_ids) == 1:
            return
        pmf = record.pmfs()[0]
        support = pmf[pmf > 0.0]
        self._decisions += 1
        self._certain += support.size == 1
        self._nearly += bool(support.max() > NEARLY_CERTAIN)
        self._actions += pmf.size
        self._impossible += pmf.size - support.size
        self._entropy -= float((support * np.log(support)).sum())
        weight = 1.0 / (pmf.size * float(pmf[record.chosen[0]]))
        self._weight += weight
        self._weight_squares += weight**2

    def findings(self) -> Iterator[Finding]:
        """One."""
        total = self._decisions
        if not total:
            yield nothing(
                "exploration",
                "no decision had a choice, but those of the holdout",
                action="offer decisions more than one action, or read more of the log",
            )
            return
        effective = self._weight**2 / self._weight_squares
        figures = {
            "decisions": total,
            "one_possible_action": self._certain,
            "nearly_certain": self._nearly,
            "actions_without_a_chance": self._impossible / self._actions,
            "effective_actions": math.exp(self._entropy / total),
            "actions": self._actions / total,
            "effective_sample_of_uniform": effective,
        }
        warn, fail = CERTAIN
        severity: Severity = "ok"
        if exceeds(self._certain, total, fail):
            severity = "failure"
        elif (
            self._certain > warn * total
            or self._impossible > IMPOSSIBLE * self._actions
            or self._nearly > OFTEN * total
            or effective < USEFUL * total
        ):
            severity = "warning"
        yield found(
            "exploration",
            severity,
            f"{percent(self._certain, total)} of {total:,} decisions had one possible action,"
            f" {percent(self._nearly, total)} one of more than {NEARLY_CERTAIN:.0%};"
            f" {figures['effective_actions']:.2f} of {figures['actions']:.1f} actions are effectively tried; to the"
            f" uniform policy the log is worth {effective:,.0f} decisions",
            cause="floor is 0 or tiny while the model is sure of itself, or the exploration is greedy",
            action="set floor to 0.01 or more, or an exploration that gives every action a chance (squarecb, softmax);"
            " decisions of one possible action cannot be used to evaluate another policy",
            figures=dict(figures),
        )
