"""Training on the project's archive: only what was chosen is read, and the model is the same."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from support.logs import archived
from support.records import CATALOGUE, random_rows

from bandits.exploration import EpsilonGreedy
from bandits.log.join import JoinRule
from bandits.log.records import (
    ActivationRecord,
    CatalogueRecord,
    LogEntry,
    RewardRecord,
    SpecRecord,
    TickRecord,
)
from bandits.ridge.config import RidgeConfig
from bandits.types import ChosenRow
from bandits.vw.config import VwConfig
from policies.blend import make_learner
from policies.catalogue import Catalogue
from policies.spec import PolicySpec
from simulator.learners.online import featurise_row
from simulator.learners.trained import train_on_log
from simulator.logs.archive.pieces import ArchivePiece, policy_pieces, read_for_learning
from simulator.logs.row_ranges import row_range
from simulator.replay.leakage import hashes_of

RULE = JoinRule(window_s=2.0, default_reward=-1.0)
RIDGE = PolicySpec("p", learner=RidgeConfig(interactions=[("context", "features")]), join=RULE)
SPECS = {
    "ridge": RIDGE,
    "items alone": msgspec.structs.replace(RIDGE, use=["item"]),
    "vw": msgspec.structs.replace(
        RIDGE,
        learner=VwConfig("--cb_explore_adf -b 12 -q cf -q cs"),
        exploration=EpsilonGreedy(),
    ),
}


def entries(*, slates: bool) -> list[LogEntry]:
    """Decisions, every third deferred and most of those activated, every second rewarded."""
    records = list({id(row.record): row.record for row in random_rows(260, 5)}.values())
    out = [
        LogEntry("1-0", SpecRecord(RIDGE.digest, "salt")),
        LogEntry("1-1", CatalogueRecord(Catalogue().digest)),
        LogEntry("1-2", CatalogueRecord(CATALOGUE.digest)),
    ]
    for number, record in enumerate(records):
        now = 1_000_000 + 100 * number
        pmf, chosen = record.pmf, record.chosen
        if not slates:
            pmf, chosen = pmf[: 8 * len(record.action_ids)], chosen[:1]
        named = msgspec.structs.replace(
            record,
            spec=RIDGE.digest,
            deferred=number % 3 == 0,
            holdout=number % 7 == 0,
            pmf=pmf,
            chosen=chosen,
        )
        out.append(LogEntry(f"{now}-0", named))
        if number % 2:
            out.append(LogEntry(f"{now + 30}-0", RewardRecord(record.event_id, 1.0, None, 0)))
        if number % 12:
            out.append(LogEntry(f"{now + 40}-0", ActivationRecord(record.event_id)))
    return [*out, LogEntry("2000000-0", TickRecord())]


@pytest.fixture(scope="module", params=[True, False], ids=["slates", "one slot"])
def root(request, tmp_path_factory) -> Path:
    known = (CATALOGUE, Catalogue())
    blobs = {
        RIDGE.digest: RIDGE.encoded,
        **{catalogue.digest: catalogue.encoded for catalogue in known},
    }
    log = entries(slates=request.param)
    return archived(tmp_path_factory.mktemp("archive"), log, RIDGE, 4, blobs)


def pieces(root: Path, count: int = 1) -> list[ArchivePiece]:
    return policy_pieces(str(root), "p", count)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("count", [1, 3])
def test_an_archive_teaches_what_its_rows_do_one_by_one(root, name, count):
    spec, rows = SPECS[name], 0
    by_hand = make_learner(spec, salt=b"")
    for piece in pieces(root):
        for batch in piece.batches():
            for row in batch.decisions:
                context, actions = featurise_row(spec, row)
                by_hand.learn_row(
                    ChosenRow(
                        row.action_ids[row.chosen],
                        context.namespaces,
                        actions.row(row.chosen),
                        row.reward,
                        len(row.action_ids),
                        row.propensity,
                    )
                )
                rows += 1
    model = train_on_log(spec, pieces(root, count))
    assert rows > 150
    assert (model.learned, model.rows.rows) == (rows, rows)
    assert model.checkpoint == by_hand.checkpoint()


def test_a_part_of_an_archive_teaches_its_rows(root):
    (piece,) = pieces(root)
    counts = [sum(map(len, piece.batches()))]
    parts = [row_range([piece], counts, low, high) for low, high in ((0, 50), (50, counts[0]))]
    whole = train_on_log(RIDGE, pieces(root))
    assert train_on_log(RIDGE, [*parts[0], *parts[1]]).checkpoint == whole.checkpoint


def test_rows_are_known_again_by_whoever_reads_them_as_objects(root):
    for learned, read in zip(pieces(root, 3), pieces(root, 3), strict=True):
        read_for_learning([learned], ["context"])
        for batch, same in zip(learned.batches(), read.batches(), strict=True):
            assert batch.actions is None
            np.testing.assert_array_equal(batch.propensity, same.propensity)
            expected = hashes_of(read, replace(same, records=None))
            for found in (hashes_of(learned, batch), hashes_of(read, same)):
                np.testing.assert_array_equal(found, expected)
