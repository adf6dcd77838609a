"""A part of an archive by its time: the rows of the whole that are in it, and no others."""

import numpy as np
import pytest
from support.logs import RULE, WINDOW, archived, decision

from bandits.errors import ReplayError
from bandits.log.positions import has_reached, is_after, position_at
from bandits.log.records import LogEntry, RewardRecord, SpecRecord, TickRecord
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec
from simulator.logs.archive.pieces import archive_pieces
from simulator.logs.formats import open_log
from simulator.ope.targets import FirstTarget
from simulator.replay.evaluate import OpeQuestion, evaluate
from simulator.replay.parse_policy import parse_policy

SPEC = PolicySpec("p", join=RULE)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Decisions a second apart, most rewarded later, as an archive of several files."""
    rng = np.random.default_rng(2)
    entries = [LogEntry("1-0", SpecRecord(SPEC.digest, "s"))]
    for number in range(60):
        made = decision(
            f"e{number}",
            chosen=(number % 3,),
            spec=SPEC.digest,
            catalogue=Catalogue().digest,
        )
        entries.append(LogEntry(f"{1000 * (number + 1)}-0", made))
        if number >= 3:
            rewarded = RewardRecord(f"e{number - 3}", float(rng.integers(2)))
            entries.append(LogEntry(f"{1000 * (number + 1)}-1", rewarded))
    entries.append(LogEntry(f"{70_000 + WINDOW}-0", TickRecord()))
    return archived(tmp_path_factory.mktemp("range"), entries, SPEC, files=6)


def rows(pieces) -> list[tuple[int, float]]:
    return [
        pair
        for piece in pieces
        for batch in piece.batches()
        for pair in zip(batch.times_ms.tolist(), batch.reward.tolist(), strict=True)
    ]


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize(
    ("first", "last"), [(0, 10**9), (10_500, 30_500), (30_000, 30_000), (59_000, 10**9)]
)
def test_rows_of_a_part_are_those_of_the_whole_in_it(log, count, first, last):
    """With the rewards that came after its end; a decision at its end is in it."""
    after, through = position_at(first), position_at(last)
    found = rows(archive_pieces(log, "p", count, after=after, through=through))
    expected = [
        pair
        for pair in rows(archive_pieces(log, "p", 1))
        if is_after(f"{pair[0]}-0", after) and has_reached(through, f"{pair[0]}-0")
    ]
    assert found == expected


def test_only_an_archive_has_times_that_a_part_is_cut_by(tmp_path):
    (tmp_path / "log.csv").write_text("reward,propensity\n1,0.5\n")
    with pytest.raises(ReplayError, match="needs an archive"):
        open_log(str(tmp_path / "log.csv"), "csv", through="5-0")


def test_the_first_action_as_a_policy_is_worth_what_the_log_earned_with_it(log):
    """Of a uniform log: the mean reward of the rows in which it was chosen."""
    target = parse_policy("first")
    assert isinstance(target, FirstTarget)
    pieces = archive_pieces(log, "p", 1)
    report = evaluate(OpeQuestion([target], estimators=["snips"]), pieces)
    chosen = [row for piece in pieces for batch in piece.batches() for row in batch.decisions]
    expected = np.mean([row.reward for row in chosen if row.chosen == 0])
    assert report.results[0].estimates["snips"].value == pytest.approx(expected, abs=1e-12)
    assert [target.pmf(row).tolist() for row in chosen[:2]] == [[1.0, 0.0, 0.0]] * 2
