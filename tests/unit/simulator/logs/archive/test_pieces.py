"""An archive's rows by columns say what its records say."""

import msgspec
import numpy as np
import pytest
from support.fakes import FakeLog
from support.logs import archived, decision

from bandits.errors import ArchiveError, BadRowError
from bandits.log.codec import digest
from bandits.log.join import Join, JoinRule
from bandits.log.records import LogEntry, RewardRecord, Ruled, TickRecord
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec
from simulator.logs.actions.from_rows import columns_from_rows
from simulator.logs.actions.row_records import records_from_rows
from simulator.logs.archive import batches
from simulator.logs.archive.pieces import archive_pieces
from simulator.logs.archive.rows import decision_rows
from simulator.logs.archive.rules import evaluation_rule
from simulator.logs.rows import LazyDecisions

SPEC = PolicySpec("p", join=JoinRule(window_s=2.0, default_reward=-1.0))
EMPTY = Catalogue()


def value(rng):
    return [
        float(rng.normal()),
        bool(rng.random() < 0.5),
        str(rng.choice(["red", "blue", ""])),
        rng.choice(["x", "y"], size=rng.integers(3)).tolist(),
    ][rng.integers(4)]


def features_of(rng, most=4):
    return {f"f{n}": value(rng) for n in rng.permutation(5)[: rng.integers(most)].tolist()}


def random_decision(rng, name, slates=True):
    """A decision of any shape: all that its columns have to say."""
    count = int(rng.integers(1, 6))
    ids = [f"item{n}" for n in rng.permutation(30)[:count].tolist()]
    chosen = rng.permutation(count)[: 1 + int(rng.integers(min(count, 3))) * slates].tolist()
    inline = [features_of(rng) if rng.random() < 0.7 else None for _ in ids]
    sources = [each for each in ("cf", "deep", "other") if rng.random() < 0.5]
    scores = rng.normal(size=(3, count)).astype("<f4")
    scores[rng.random(scores.shape) < 0.2] = np.nan
    return decision(
        name,
        ids=tuple(ids),
        chosen=chosen,
        spec=SPEC.digest,
        catalogue=EMPTY.digest,
        context=features_of(rng, 6),
        features=inline if rng.random() < 0.6 else None,
        scores={each: scores[n].tobytes() for n, each in enumerate(sources)},
        user=f"u{rng.integers(3)}" if rng.random() < 0.5 else None,
        rules=Ruled(page=page_of(rng, count, chosen)) if rng.random() < 0.3 else None,
    )


def page_of(rng, count, chosen):
    """What a page said of its last slots: of any action but that which was chosen, that it may not."""
    first = int(rng.integers(len(chosen)))
    said = rng.choice([0.0, -0.5, np.nan], size=(len(chosen) - first, count)).astype("<f2")
    said[np.arange(len(chosen) - first), chosen[first:]] = 0.25
    return said.tobytes()


def log_of(seed, count=200, slates=True):
    rng, log, now = np.random.default_rng(seed), FakeLog(SPEC), 10
    log.blobs[EMPTY.digest] = EMPTY.encoded
    for number in range(count):
        now += int(rng.integers(200))
        log.append(random_decision(rng, f"e{number}", slates), at=now)
        for _ in range(rng.integers(3)):
            at = int(rng.integers(number + 1))
            log.append(RewardRecord(f"e{at}", float(rng.normal()), f"r{rng.integers(9)}"), at=now)
    log.append(TickRecord(), at=now + 10_000)
    return log


def rows_of_records(log):
    rule = evaluation_rule(SPEC.join)
    join = Join(lambda _: rule, rule=rule)
    return [
        row for e in log.entries for each in join.apply(e) for row in decision_rows(each, EMPTY)
    ]


def batches_of(root, shards=1, **options):
    return [
        b for piece in archive_pieces(str(root), "p", shards, **options) for b in piece.batches()
    ]


def stored(root, log, files=5):
    archived(root, log.entries, SPEC, files, blobs=log.blobs)
    (root / "p" / "_blobs" / EMPTY.digest).write_bytes(EMPTY.encoded)
    return root


def shown(columns):
    """What columns say, row by row, by names."""
    rows = []
    for row in range(len(columns)):
        first, stop = columns.offsets[row : row + 2].tolist()
        maps = range(first, stop)
        rows.append(
            {
                "ids": [columns.names[code] for code in columns.ids[first:stop]],
                "chosen": int(columns.chosen[row]),
                "pmf": columns.pmf[first:stop].tolist(),
                "context": columns.context.feature_map(row),
                "scores": {
                    source: values[first:stop].tobytes()
                    for source, (values, answered) in columns.scores.items()
                    if answered is None or answered[row]
                },
                "features": None
                if columns.features is None
                else [columns.features.feature_map(at) for at in maps],
            }
        )
    return rows


def taught(columns):
    """What records say, row by row."""
    return [
        {
            "id": columns.ids.text(row),
            "slot": int(columns.slots[row]),
            "place": int(columns.places[row]),
            "catalogue": columns.known[columns.catalogues[row]].digest,
            "context": columns.context.feature_map(record),
            "scores": {
                source: values[slice(*columns.scores.offsets[record : record + 2])].tobytes()
                for source, (values, answered) in columns.scores.sources.items()
                if answered is None or answered[record]
            },
            "own": columns.chosen.maps.feature_map(row) if columns.chosen.given[row] else None,
        }
        for row, record in enumerate(columns.records.tolist())
    ]


@pytest.mark.parametrize("slates", [True, False])
@pytest.mark.parametrize("rows", [1, 50, 1 << 14])
def test_columns_and_rows_are_those_of_the_records(slates, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "COLUMN_ENTRIES", rows)
    log = log_of(rows, slates=slates)
    expected, found = rows_of_records(log), batches_of(stored(tmp_path, log))
    assert len(expected) > 150
    assert sum(map(len, found)) == len(expected)
    assert len(found) == 1 if rows > len(expected) else len(found) > 1
    at = 0
    for batch in found:
        mine = expected[at : at + len(batch)]
        at += len(batch)
        assert batch.reward.tolist() == [row.reward for row in mine]
        assert batch.times_ms.tolist() == [row.time_ms for row in mine]
        assert batch.propensity.tolist() == [row.propensity for row in mine]
        one, other = shown(batch.actions), shown(columns_from_rows(mine))
        for each in (one, other):
            for row in each:
                if row["features"] is not None and not any(row["features"]):
                    row["features"] = None
        assert one == other
        assert taught(batch.records) == taught(records_from_rows(mine))
        assert batch.decisions[len(mine) // 2].record == mine[len(mine) // 2].record
        for row, wanted in zip(batch.decisions, mine, strict=True):
            for field in ("event_id", "slot", "chosen", "context", "features", "record"):
                assert getattr(row, field) == getattr(wanted, field)
            assert (row.reward, row.time_ms) == (wanted.reward, wanted.time_ms)
            assert row.catalogue.digest == EMPTY.digest
            np.testing.assert_array_equal(row.pmf, wanted.pmf)


def test_what_nobody_asks_for_is_not_read_and_then_it_is_read_along(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "COLUMN_ENTRIES", 1)
    root = stored(tmp_path, log_of(3), files=8)
    read = []
    columns = batches.ArchiveReader.columns

    def spied(self, names, *options, **more):
        for group in columns(self, names, *options, **more):
            read.append(tuple(names))
            yield group

    monkeypatch.setattr(batches.ArchiveReader, "columns", spied)
    (piece,) = archive_pieces(str(root), "p", 1)
    for number, batch in enumerate(piece.batches()):
        if number == 2:
            assert not any(
                {"context", "scores", "features", "record"} & set(names) for names in read
            )
            assert batch.actions.context.codes.size
            assert read.pop() == ("context",)
    assert ("catalogue", "chosen", "action", "actions", "pmf", "page", "context") in read
    assert ("context",) not in read


def test_rows_of_a_batch_can_be_picked(tmp_path):
    log = log_of(5)
    expected, (batch,) = rows_of_records(log), batches_of(stored(tmp_path, log))
    assert isinstance(batch.decisions, LazyDecisions)
    picked = np.array([7, 3, 100])
    for rows in (picked, slice(5, 9)):
        some = batch.take(rows)
        wanted = np.array(expected, object)[rows]
        assert [row.event_id for row in some.decisions] == [row.event_id for row in wanted]
        assert some.reward.tolist() == [row.reward for row in wanted]
        assert [row["ids"] for row in shown(some.actions)] == [list(r.action_ids) for r in wanted]


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_decision_of_a_catalogue_that_is_none_is_a_bad_row(tmp_path, skip_bad):
    log = log_of(9, 60)
    at = next(n for n, e in enumerate(log.entries) if getattr(e.record, "event_id", "") == "e30")
    entry = log.entries[at]
    bad = msgspec.structs.replace(entry.record, catalogue="0" * 32)
    log.entries[at] = LogEntry(entry.id, bad)
    root = stored(tmp_path, log)
    with pytest.raises(ArchiveError, match="no such blob"):
        batches_of(root, skip_bad=skip_bad)

    data = b"[{]"
    bad = msgspec.structs.replace(bad, catalogue=(name := digest(data)))
    log.entries[at] = LogEntry(entry.id, bad)
    root = stored(tmp_path / "again", log)
    (root / "p" / "_blobs" / name).write_bytes(data)
    if not skip_bad:
        with pytest.raises(BadRowError, match=f"entry {entry.id}"):
            batches_of(root)
        return
    (piece,) = archive_pieces(str(root), "p", 1, skip_bad=True)
    events = [row.event_id for batch in piece.batches() for row in batch.decisions]
    assert "e30" not in events
    assert len(set(events)) == 59
    assert piece.skipped == 1
