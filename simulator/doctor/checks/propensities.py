"""The logged probabilities are those that choices were drawn with.

Draws are made again, with the salt, and three tests need none. Each of these has a false-alarm rate
of at most FALSE_ALARM over the whole log.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping

import numpy as np

from bandits.log.records import DecisionRecord, LogEntry, SpecRecord
from bandits.statistics.betting import BETS_ABOVE, p_value
from bandits.types import Pmf
from simulator.doctor.audit import BETS_BELOW, FALSE_ALARM, WeightTest, redraws
from simulator.doctor.checks.findings import (
    Figure,
    Finding,
    Severity,
    make_finding,
    nothing_to_check,
)

NOT_THE_PMF = (
    "what was served is not drawn from the PMF that was logged: the PMF is computed twice or"
    " changed after the draw, or the choice is overruled behind the policy's back"
)
FIX_THE_PMF = (
    "do not learn or evaluate from this stretch of the log; make every choice through decide()"
    " and log the PMF it was given; express business rules as actions left out before the draw"
)


class Draws:
    """Draws every choice again from its PMF and the salt.

    ``salts`` are given by the id under which the log names them.
    """

    def __init__(self, salts: Mapping[str, bytes]) -> None:
        self._salts = salts
        self._salt_id = ""
        self._right = self._wrong = self._unknown = 0
        self._first: str | None = None

    def add(self, entry: LogEntry) -> None:
        """Draw a decision again."""
        record = entry.record
        if isinstance(record, SpecRecord):
            self._salt_id = record.salt_id
        elif isinstance(record, DecisionRecord):
            if not self._salts or (_is_digest(self._salt_id) and self._salt_id not in self._salts):
                self._unknown += 1  # another salt gives one choice of K by luck
            elif any(redraws(record, salt) for salt in self._salts.values()):
                self._right += 1
            else:
                self._wrong += 1
                self._first = self._first or entry.id

    def findings(self) -> Iterator[Finding]:
        """Yield one: a failure for a single choice that does not follow from its record."""
        total = self._right + self._wrong + self._unknown
        message = (
            f"{self._right:,} of {total:,} choices are drawn again from the logged PMF and the salt"
        )
        unknown = f"{message}; {self._unknown:,} could not be, because their salt is not known here"
        action = (
            "name the salt of the service: --data-dir or --salt-file, once for every salt it has"
            " had"
        )
        figures: dict[str, Figure] = {
            "decisions": total,
            "drawn_again": self._right,
            "differ": self._wrong,
            "salt_unknown": self._unknown,
            "first_differing": self._first,
        }

        # One wrong choice outweighs any number that are right, or cannot be checked.
        if self._wrong:
            cause = NOT_THE_PMF + "; or the service draws with another salt than the one given here"
            yield make_finding(
                "draws", "failure", message, cause=cause, action=FIX_THE_PMF, figures=figures
            )
        elif not self._right:
            yield nothing_to_check("draws", unknown, action=action, figures=figures)
        elif self._unknown:
            cause = "the log names another salt than was given"
            yield make_finding(
                "draws", "warning", unknown, cause=cause, action=action, figures=figures
            )
        else:
            yield make_finding("draws", "ok", message, cause="", action="", figures=figures)


class Repeats:
    """Tells the first decision of an event_id from those that repeat it.

    A repeated event_id draws with the same uniform, so it is no new evidence.

    The memory is one bit per event_id out of 2^28 (32 MiB): when n event_ids are known, a new one
    is taken for a repeated one with probability below n / 2^28. That leaves out a few decisions,
    chosen by their ids alone, which biases no test.
    """

    BITS = 28

    def __init__(self) -> None:
        self._seen = np.zeros(1 << (self.BITS - 3), np.uint8)

    def first(self, record: DecisionRecord) -> bool:
        """Return whether this event_id is new, and remember it."""
        key = hashlib.blake2b(record.event_id.encode(errors="replace"), digest_size=8).digest()
        number = int.from_bytes(key, "little") & ((1 << self.BITS) - 1)
        byte, bit = int(self._seen[number >> 3]), 1 << (number & 7)
        self._seen[number >> 3] = byte | bit
        return not byte & bit


class Propensities:
    """Runs the tests of the weights, of each action and of the frequencies, over every slot."""

    def __init__(self) -> None:
        self._repeats = Repeats()
        self._weights = WeightTest()
        self._actions = ActionTest()
        self._frequencies = FrequencyTest()

    def add(self, entry: LogEntry) -> None:
        """Test a decision's slots."""
        record = entry.record
        if not isinstance(record, DecisionRecord) or not self._repeats.first(record):
            return
        for pmf, index in zip(record.pmfs(), record.chosen, strict=True):
            if pmf.max() < 1.0:  # else nothing was left to chance
                self._weights.add(pmf, index)
                self._actions.add(record.action_ids, pmf, index)
                self._frequencies.add(pmf, index)

    def findings(self) -> Iterator[Finding]:
        """Yield one per test."""
        weights = self._weights
        if not weights.draws:
            for check in ("weights", "action_weights", "frequencies"):
                yield nothing_to_check(
                    check,
                    "no choice was left to chance: every PMF has one possible action",
                    action="decide among several actions, each with a chance (a floor, or another"
                    " exploration)",
                )
            return

        # The p-value decides; z is for a reader, and means something for many draws only.
        z = weights.excess / weights.stderr if weights.stderr > 0 else 0.0
        yield make_finding(
            "weights",
            _severity(weights.p_value),
            f"the mean of 1/propensity is {z:+.2f} standard errors from the number of actions",
            cause=NOT_THE_PMF,
            action=FIX_THE_PMF,
            figures={
                "draws": weights.draws,
                "excess": weights.excess,
                "stderr": weights.stderr,
                "z": z,
                "p_value": weights.p_value,
                "false_alarm": FALSE_ALARM,
            },
        )
        yield self._actions.finding()
        yield self._frequencies.finding()


class ActionTest:
    """Tests E[1{a} / p(a)] = 1 for each action, at one false-alarm rate for all of them.

    One kind of bet says that the action is chosen in a share s of the draws whatever its p, s in
    BETS_ABOVE (factor 1 + s (1{a} / p - 1)); the other that it is chosen (1 - s) times as often as
    its p, s in BETS_BELOW. The money is spread evenly over TRACKED actions, those that the log
    names first, so that the test holds for all of them at once.
    """

    TRACKED = 1000

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._offered = np.zeros(self.TRACKED, np.int64)
        self._served = np.zeros(self.TRACKED, np.int64)
        self._expected = np.zeros(self.TRACKED)
        self._weight = np.zeros(self.TRACKED)
        self._log_money_above = np.zeros((self.TRACKED, BETS_ABOVE.size))
        self._log_money_below = np.zeros((self.TRACKED, BETS_BELOW.size))

    def add(self, ids: list[str], pmf: Pmf, chosen: int) -> None:
        """Count a draw.

        Args:
            ids: the K actions; new ones are left out once TRACKED others are known.
            pmf: float64[K], the logged PMF, below 1 everywhere.
            chosen: the index of the action that was drawn, whose probability is above 0.
        """
        rows = np.array([self._row(action_id) for action_id in ids])
        open_ = (rows >= 0) & (pmf > 0.0) & (pmf < 1.0)
        tracked, p = rows[open_], pmf[open_]
        odds = p / (1.0 - p)

        # Every action that was offered is first counted as not chosen.
        self._offered[tracked] += 1
        self._expected[tracked] += p
        self._log_money_below[tracked] += np.log1p(odds[:, None] * BETS_BELOW)

        # The one that was chosen is then corrected.
        row = int(rows[chosen])
        if row >= 0:
            probability = float(pmf[chosen])
            self._served[row] += 1
            self._weight[row] += 1.0 / probability
            self._log_money_above[row] += np.log1p(BETS_ABOVE / ((1.0 - BETS_ABOVE) * probability))
            self._log_money_below[row] += np.log1p(-BETS_BELOW) - np.log1p(
                probability / (1.0 - probability) * BETS_BELOW
            )

    def finding(self) -> Finding:
        """Return a finding that names the action whose choices are least like its propensities."""
        not_chosen = self._offered[:, None] * np.log1p(-BETS_ABOVE)
        log_money = np.hstack([self._log_money_above + not_chosen, self._log_money_below])
        value = p_value(log_money.ravel())

        names = list(self._rows)
        worst = int(log_money[: max(1, len(names))].max(axis=1).argmax())
        offered, served = int(self._offered[worst]), int(self._served[worst])
        mean = float(self._weight[worst] / self._offered[worst]) if offered else 1.0
        action_id = names[worst] if names else None

        return make_finding(
            "action_weights",
            _severity(value),
            f"of {len(names):,} actions the least likely is {action_id!r}: served {served:,}"
            f" times, by its propensities {float(self._expected[worst]):,.1f}; mean of 1{{a}}/p"
            f" {mean:.3f}, not 1",
            cause=NOT_THE_PMF + "; here for this action: a rule that promotes or hides it",
            action=FIX_THE_PMF,
            figures={
                "actions": len(names),
                "worst": action_id,
                "offered": offered,
                "served": served,
                "expected": float(self._expected[worst]),
                "mean_weight": mean,
                "p_value": value,
                "false_alarm": FALSE_ALARM,
            },
        )

    def _row(self, action_id: str) -> int:
        """Return the row that an action is tracked in; -1 when all are taken."""
        row = self._rows.get(action_id, -1)
        if row < 0 and len(self._rows) < self.TRACKED:
            row = self._rows[action_id] = len(self._rows)
        return row


class FrequencyTest:
    """Compares served with logged frequencies: chi-square over bins of probability.

    A draw's place in its PMF, most likely action first, spread evenly over the stretch of the
    action it fell on, is uniform on [0, 1] whatever the PMFs were (Rosenblatt 1952). So each of
    BINS equal bins expects the same count: the first bins hold the policy's favourites, the last
    its exploration.
    """

    BINS = 21
    """Odd: with an even number of degrees of freedom the distribution has a closed form."""
    PER_BIN = 50
    """Draws per bin below which nothing is tested: chi-square is only the limit of many."""

    def __init__(self) -> None:
        self._counts = np.zeros(self.BINS, np.int64)
        self._rng = np.random.default_rng(0)

    def add(self, pmf: Pmf, chosen: int) -> None:
        """Count a draw.

        Args:
            pmf: float64[K], the logged PMF.
            chosen: the index of the action that was drawn.
        """
        p = pmf[chosen]
        before = float(pmf[pmf > p].sum() + pmf[:chosen][pmf[:chosen] == p].sum())
        place = before + self._rng.random() * float(p)
        self._counts[min(int(place * self.BINS), self.BINS - 1)] += 1

    def finding(self) -> Finding:
        """Test the counts, if there are enough."""
        draws = int(self._counts.sum())
        expected = draws / self.BINS
        if expected < self.PER_BIN:
            return nothing_to_check(
                "frequencies",
                f"{draws:,} draws are too few to compare frequencies, which takes"
                f" {self.BINS * self.PER_BIN:,}",
                action="read more of the log",
                figures={"draws": draws, "needed": self.BINS * self.PER_BIN},
            )

        excess = (self._counts - expected) / expected
        statistic = float(((self._counts - expected) ** 2).sum() / expected)
        value = chi_square_tail(statistic, self.BINS - 1)
        worst = int(np.abs(excess).argmax())

        # The bin that differs most says whether favourites or rare actions are served too often.
        return make_finding(
            "frequencies",
            _severity(value),
            f"served against logged: chi-square {statistic:.1f} with {self.BINS - 1} degrees of"
            f" freedom, largest difference {100 * excess[worst]:+.1f}% in bin {worst + 1} of"
            f" {self.BINS}, the likeliest actions first",
            cause=NOT_THE_PMF,
            action=FIX_THE_PMF,
            figures={
                "draws": draws,
                "bins": self.BINS,
                "chi_square": statistic,
                "p_value": value,
                "worst_bin": worst + 1,
                "worst_difference": float(excess[worst]),
                "false_alarm": FALSE_ALARM,
            },
        )


def chi_square_tail(statistic: float, degrees: int) -> float:
    """Return P(X >= statistic) for a chi-square X: a Poisson sum.

    Args:
        statistic: from 0.
        degrees: of freedom, an even number.
    """
    half = statistic / 2.0
    if half <= 0.0:
        return 1.0
    return math.fsum(
        math.exp(k * math.log(half) - math.lgamma(k + 1) - half) for k in range(degrees // 2)
    )


def _severity(value: float) -> Severity:
    return "failure" if value < FALSE_ALARM else "ok"


def _is_digest(salt_id: str) -> bool:
    return len(salt_id) == 32
