"""The policy still explores: else it learns nothing new, and its log supports no other policy."""

import math
from collections import deque
from collections.abc import Iterator

import numpy as np

from bandits.exploration import EpsilonGreedy
from bandits.log.records import DecisionRecord, LogEntry, RewardRecord
from policies.spec import PolicySpec
from simulator.doctor.checks.findings import (
    Finding,
    Severity,
    exceeds,
    make_finding,
    nothing_to_check,
    percent,
)
from simulator.doctor.checks.references import ReferencedBlobs

CERTAIN = (0.01, 0.2)
"""Shares of the decisions with one possible action, above which: a warning, and a failure."""
NEARLY_CERTAIN, OFTEN = 0.99, 0.9
"""A probability near 1, and the share of the decisions with one above which it is a warning."""
IMPOSSIBLE = 0.05
"""Share of the actions that have no chance, above which they are a warning."""
USEFUL = 0.01
"""Share of the decisions that count for the uniform policy, below which it is a warning."""

ENOUGH_EVENTS = 200
"""Rewards after which a policy that learns is no longer uniform, and decisions to tell it from."""
ALIKE = 1e-6
"""How far equal probabilities may differ: VW's are 32-bit floats."""
STUCK = 0.99
"""Share of the decisions that are uniform, above which nothing seems to be learned."""
LAG_MS = 10_000
"""More than a model takes to be published and served."""


class Exploration:
    """Looks at the first slot of decisions that had a choice.

    Holdouts are fixed by intention and left out; so is what was served beside an apprentice.
    """

    def __init__(self) -> None:
        self._decisions = self._certain = self._nearly = self._impossible = self._actions = 0
        self._entropy = self._weight = self._weight_squares = 0.0
        self._beside = 0

    def add(self, entry: LogEntry) -> None:
        """Look at a decision's first PMF."""
        record = entry.record
        if not isinstance(record, DecisionRecord) or record.holdout or len(record.action_ids) <= 1:
            return
        if record.apprentice is not None:
            self._beside += 1
            return

        pmf = record.pmfs()[0]
        support = pmf[pmf > 0.0]
        self._decisions += 1
        self._certain += support.size == 1
        self._nearly += bool(support.max() > NEARLY_CERTAIN)
        self._actions += pmf.size
        self._impossible += pmf.size - support.size
        self._entropy -= float((support * np.log(support)).sum())

        # The importance weight of the uniform policy.
        weight = 1.0 / (pmf.size * float(pmf[record.chosen[0]]))
        self._weight += weight
        self._weight_squares += weight**2

    def findings(self) -> Iterator[Finding]:
        """Yield one: a failure where too many decisions had one possible action."""
        total = self._decisions
        if not total:
            beside = f" and {self._beside:,} beside an apprentice" if self._beside else ""
            yield nothing_to_check(
                "exploration",
                f"no decision had a choice, but those of the holdout{beside}",
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

        # Only certainty is a failure: such decisions can be used by no other policy.
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

        yield make_finding(
            "exploration",
            severity,
            f"{percent(self._certain, total)} of {total:,} decisions had one possible action,"
            f" {percent(self._nearly, total)} one of more than {NEARLY_CERTAIN:.0%};"
            f" {figures['effective_actions']:.2f} of {figures['actions']:.1f} actions are"
            " effectively tried; to the uniform policy the log is worth"
            f" {effective:,.0f} decisions",
            cause="floor is 0 or tiny while the model is sure of itself, or the exploration is"
            " greedy",
            action="set floor to 0.01 or more, or an exploration that gives every action a chance"
            " (squarecb, softmax); decisions of one possible action cannot be used to evaluate"
            " another policy",
            figures=dict(figures),
        )


class Uniformity:
    """Checks that what is learned changes what is chosen.

    A policy that stays uniform while it learns has learned nothing. Decisions count from when the
    ``ENOUGH_EVENTS``-th reward was learned and published (its window and ``LAG_MS`` later), if
    rewards told decisions apart: some came, and not all were the same. A policy that is uniform by
    its spec is meant to be.
    """

    def __init__(self, stored: ReferencedBlobs) -> None:
        self._stored = stored
        self._offered = self._came = self._learned = self._decisions = self._uniform = 0
        self._reward_times: deque[int] = deque()
        self._lowest, self._highest = math.inf, -math.inf

    def add(self, entry: LogEntry) -> None:
        """Count a reward, or look at a decision's first PMF."""
        record = entry.record
        if isinstance(record, RewardRecord):
            self._came += 1
            self._reward_times.append(entry.time_ms)
            self._lowest = min(self._lowest, record.value)
            self._highest = max(self._highest, record.value)

        if not isinstance(record, DecisionRecord) or len(record.action_ids) <= 1:
            return
        record = record.own()
        if record.holdout:
            return
        self._offered += 1
        spec = self._stored.spec(record.spec)
        if spec is None or _is_meant_uniform(spec):
            return

        # By the time of this decision, the rewards whose windows have closed were learned.
        learned_until = entry.time_ms - spec.rule.window_ms - LAG_MS
        while self._reward_times and self._reward_times[0] <= learned_until:
            self._reward_times.popleft()
            self._learned += 1

        # Rewards that are all the same, one for each decision, teach nothing.
        told_apart = self._lowest < self._highest or self._came < self._offered
        if self._learned < ENOUGH_EVENTS or not told_apart:
            return
        pmf = record.pmfs()[0]
        self._decisions += 1
        self._uniform += bool(pmf.max() - pmf.min() <= ALIKE)

    def findings(self) -> Iterator[Finding]:
        """Yield one: a warning where nearly all decisions stay uniform."""
        total = self._decisions
        if total < ENOUGH_EVENTS:
            yield nothing_to_check(
                "uniformity",
                f"{total:,} decisions followed the first {ENOUGH_EVENTS} rewards, too few to say"
                " whether the policy learns",
                action=f"let it decide {ENOUGH_EVENTS} times after {ENOUGH_EVENTS} rewards, or read"
                " more of the log",
            )
            return

        yield make_finding(
            "uniformity",
            "warning" if self._uniform > STUCK * total else "ok",
            f"after {ENOUGH_EVENTS} rewards {percent(self._uniform, total)} of {total:,} decisions"
            " were uniform",
            cause="what the learner sees does not tell one action from another, or VW's arguments"
            " do not fit the rewards (--regcb without --cb_min_cost and --cb_max_cost), or nothing"
            " is learned",
            action="give actions an id that comes again, or features, and let the spec use them;"
            " load the spec again: arguments of VW that do not learn are refused; see learner_lag",
            figures={"decisions": total, "uniform": self._uniform, "warning_above": STUCK},
        )


def _is_meant_uniform(spec: PolicySpec) -> bool:
    """Return whether a policy is uniform whatever it learns, or learns nothing from its log."""
    exploration = spec.exploration
    always = isinstance(exploration, EpsilonGreedy) and exploration.epsilon == 1.0
    return always or spec.floor == 1.0 or not spec.learner.learns
