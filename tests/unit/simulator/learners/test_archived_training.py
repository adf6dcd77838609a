"""Training on the project's archive: only what was chosen is read, and the model is the same."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from support.items import MemoryItems, put
from support.logs import archive_items, archived
from support.records import CATALOGUE, random_rows

from bandits.exploration import EpsilonGreedy, VwExploration
from bandits.log.join import JoinRule
from bandits.log.records import (
    ActivationRecord,
    CatalogueRecord,
    DecisionRecord,
    LogEntry,
    RewardRecord,
    SpecRecord,
    TickRecord,
)
from bandits.ridge.config import RidgeConfig
from bandits.types import Interaction
from bandits.vw.config import VwConfig
from policies.blend import make_learner
from policies.items.catalogue import Catalogue, Item
from policies.spec import PolicySpec
from simulator.learners.chosen import decision_columns
from simulator.learners.features import featurise_row
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
ALL_ACTIONS = msgspec.structs.replace(
    RIDGE,
    learner=VwConfig("--cb_explore_adf --cb_type dr -b 12 -q cf -q ci"),
    exploration=VwExploration(),
)
SPECS |= {
    "vw, all actions": ALL_ACTIONS,
    "vw, all actions, by id": msgspec.structs.replace(ALL_ACTIONS, use=["context", "item"]),
    "vw, all actions, of a catalogue": msgspec.structs.replace(
        ALL_ACTIONS, use=["context", "item", "features"]
    ),
    "vw, all actions, alone": msgspec.structs.replace(ALL_ACTIONS, use=["item", "features"]),
}


def entries(*, slates: bool, inline: bool) -> list[LogEntry]:
    """Decisions, every third deferred and most of those activated, every second rewarded."""
    records = list(
        {id(row.record): row.record for row in random_rows(260, 5, inline=inline)}.values()
    )
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


@pytest.fixture(
    scope="module",
    params=[(True, True), (False, True), (True, False)],
    ids=["slates", "one slot", "features of the catalogue"],
)
def root(request, tmp_path_factory) -> Path:
    known = (CATALOGUE, Catalogue())
    blobs = {
        RIDGE.digest: RIDGE.encoded,
        **{catalogue.digest: catalogue.encoded for catalogue in known},
    }
    slates, inline = request.param
    log = entries(slates=slates, inline=inline)
    return archived(tmp_path_factory.mktemp("archive"), log, RIDGE, 4, blobs)


def pieces(root: Path, count: int = 1) -> list[ArchivePiece]:
    return policy_pieces(str(root), "p", count)


@pytest.mark.slow
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("count", [1, 3])
def test_an_archive_teaches_what_its_rows_do_one_by_one(root, name, count):
    spec, rows = SPECS[name], 0
    by_hand = make_learner(spec, salt=b"")
    for piece in pieces(root):
        for batch in piece.batches():
            for row in batch.decisions:
                seen = featurise_row(spec, row)
                said = row.chosen, row.propensity, row.reward
                by_hand.learn([Interaction(row.event_id, row.slot, *seen, *said)])
                rows += 1
    model = train_on_log(spec, pieces(root, count))
    assert rows > 150
    assert (model.learned, model.rows.rows) == (rows, rows)
    assert model.checkpoint == by_hand.checkpoint()


@pytest.mark.parametrize("most", [1, 4, 4096])
def test_actions_that_come_again_are_made_once_and_no_more_than_so_many(root, monkeypatch, most):
    monkeypatch.setattr("simulator.learners.chosen.DISTINCT", most)
    monkeypatch.setattr("simulator.learners.trained.BATCH", 30)
    spec = SPECS["vw, all actions, of a catalogue"]
    (piece,) = pieces(root)
    (batch,) = piece.batches()
    columns = decision_columns(spec.use, batch, slice(0, 30))
    assert (columns is None) == (most < 4096 or batch.actions.features is not None)
    expected = make_learner(spec, salt=b"")
    for row in batch.decisions:
        seen, said = featurise_row(spec, row), (row.chosen, row.propensity, row.reward)
        expected.learn([Interaction(row.event_id, row.slot, *seen, *said)])
    assert train_on_log(spec, pieces(root)).checkpoint == expected.checkpoint()


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


@pytest.fixture(scope="module")
def changing(tmp_path_factory) -> tuple[Path, Path]:
    """An archive whose decisions name versions of items, and one that names whole catalogues."""
    items = MemoryItems()
    items.replace([Item(f"i{n}", {"price": float(n)}) for n in range(9)])
    then = [Catalogue.decode(items.timeline.encoded)]
    for number in range(100):
        items.append(put(Item(f"i{number % 9}", {"price": float(number), "tags": ["t"] * 2})))
        then.append(Catalogue.decode(items.timeline.encoded))

    named_first = [
        LogEntry(f"1-{3 + place}", CatalogueRecord(each.digest)) for place, each in enumerate(then)
    ]
    versions, wholes = [], named_first
    for number, entry in enumerate(entries(slates=True, inline=False)):
        record = entry.record
        place = number * len(then) // 1000
        for out, name in ((versions, items.versions[place]), (wholes, then[place].digest)):
            named = isinstance(record, DecisionRecord)
            said = msgspec.structs.replace(record, catalogue=name) if named else record
            out.append(LogEntry(entry.id, said))

    blobs = {each.digest: each.encoded for each in (RIDGE, *then, CATALOGUE, Catalogue())}
    first = archived(tmp_path_factory.mktemp("versions"), versions, RIDGE, 4, blobs)
    archive_items(first, "p", items)
    return first, archived(tmp_path_factory.mktemp("wholes"), wholes, RIDGE, 4, blobs)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("count", [1, 3])
def test_each_row_has_the_features_of_the_version_that_its_decision_saw(changing, name, count):
    versions, wholes = changing
    expected = train_on_log(SPECS[name], pieces(wholes))
    assert expected.rows.rows > 150
    assert train_on_log(SPECS[name], pieces(versions, count)).checkpoint == expected.checkpoint
