"""Columns say what the records say, in files of all layouts, and records come out of them exactly."""

import io
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.first_layout import put_layout_1
from support.full_logs import (
    full_decisions,
    full_logs,
    lengthened,
    same,
    shortened,
    without_apprentice,
    without_profile,
    without_rules,
)
from support.logs import decision
from support.strategies import raw_logs, tries

from bandits.errors import ArchiveError, CodecError
from bandits.log.codec import decode, encode, read_entry
from bandits.log.positions import START, has_reached, is_after
from bandits.log.records import (
    NO_RULES,
    ActivationRecord,
    Apprentice,
    ArtifactRecord,
    BuildRecord,
    DecisionRecord,
    Placed,
    Removed,
    RerankedRecord,
    RewardRecord,
    Ruled,
    SpecRecord,
    Unplaced,
)
from policies.archive import range_file
from policies.archive.archive import ArchiveReader, ArchiveWriter
from policies.archive.audit import audit_columns
from policies.archive.columns import COLUMNS, columns_of, decoded
from policies.archive.compaction import Compactor
from policies.archive.layouts import NEVER_SAID, SCHEMAS
from policies.archive.parts.rest import rest_of
from policies.archive.parts.ruled import RULED
from policies.archive.range_file import Range, hour_of, write_range

LAYOUTS = [1, 5]


def put(root: Path, layout: int, log: list[tuple[str, bytes]], *, groups: int = 2048) -> Path:
    """A log of one hour as one file."""
    committed = Range(START, log[0][0], log[-1][0], len(log))
    if layout == 1:
        return put_layout_1(root, "home", committed, log, group_entries=groups)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(range_file, "GROUP_ENTRIES", groups)
        ArchiveWriter(root, "home").write(committed, log, lambda _: None)
    return root / "home" / committed.path


def entries_of(log: list[tuple[str, bytes]]) -> list:
    return [read_entry(at, data, lambda *_: None) for at, data in log]


def derived(log: list[tuple[str, bytes]], names=tuple(COLUMNS.names)) -> list[dict]:
    return columns_of([at for at, _ in log], [decoded(data) for _, data in log], names).to_pylist()


@pytest.mark.parametrize("layout", LAYOUTS)
@tries(60)
@given(full_logs().filter(bool), st.integers(1, 5), st.data())
def test_a_file_gives_back_records_entries_and_columns(tmp_path_factory, layout, log, groups, data):
    if layout == 1:  # no build that wrote such files knew of these
        log = [each for each in log if not isinstance(decoded(each[1]), RerankedRecord)]
        assume(log)
    root = tmp_path_factory.mktemp("archive")
    put(root, layout, log, groups=groups)
    reader = ArchiveReader(root, "home")
    assert list(reader.raw()) == log
    assert repr(list(reader.entries())) == repr(entries_of(log))

    ids = [at for at, _ in log]
    after = data.draw(st.sampled_from([START, *ids]))
    through = data.draw(st.sampled_from([None, *ids]))
    part = [
        each
        for each in log
        if is_after(each[0], after) and (through is None or has_reached(through, each[0]))
    ]
    names = data.draw(st.lists(st.sampled_from(COLUMNS.names), min_size=1, unique=True))
    found = [
        row for group in reader.columns(names, after, through) for row in group.batch.to_pylist()
    ]
    if layout == 1:  # where a slot is larger than the column holds, it has none
        for row, (_, data_) in zip(found, part, strict=True):
            record = decoded(data_)
            if (
                isinstance(record, RewardRecord)
                and (record.slot or 0) > 2**63 - 1
                and "slot" in row
            ):
                row["slot"] = 2**63 - 1
    expected = derived(part, names)
    for row in (*found, *expected):  # no build that wrote such files knew of these
        row.update(dict.fromkeys(NEVER_SAID[layout] & row.keys()))
    assert same(found, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=30)
@given(raw_logs(), st.sets(st.sampled_from(["decision", "reward", "spec", "undecodable"])))
def test_only_the_kinds_that_are_asked_for_are_given(tmp_path_factory, layout, log, kinds):
    log = [entry for entry in log if hour_of(entry[0]) == hour_of(log[0][0])]
    root = tmp_path_factory.mktemp("archive")
    put(root, layout, log, groups=3)
    reader = ArchiveReader(root, "home")
    found = [
        row
        for group in reader.columns(["id", "kind", "pmf"], kinds=kinds)
        for row in group.batch.to_pylist()
    ]
    expected = [row for row in derived(log, ["id", "kind", "pmf"]) if row["kind"] in kinds]
    assert found == expected
    ids = [entry.id for entry in reader.entries(kinds=kinds)]
    assert ids == [row["id"] for row in expected]


@settings(max_examples=60)
@given(full_decisions())
def test_what_the_columns_hold_is_not_held_twice(record):
    data = encode(record)
    rest = rest_of(record, data)
    if (record.unserved and not record.holdout) or record.rules == NO_RULES:
        assert rest == data  # no column says so
    else:
        assert len(rest) < 60
    assert rest_of(decode(shortened(data)), shortened(data)) != shortened(data)
    assert rest_of(record, lengthened(data)) == lengthened(data)


@tries(60)
@given(full_logs().filter(bool))
def test_the_columns_are_what_decoding_gives(log):
    for row, (at, data) in zip(derived(log), log, strict=True):
        try:
            record = decode(data)
        except CodecError:
            assert row["kind"] == "undecodable"
            assert {name for name in row if row[name] is not None} == {"id", "ms", "seq", "kind"}
            continue

        milliseconds, _, sequence = at.partition("-")
        assert (row["id"], row["ms"], row["seq"]) == (at, int(milliseconds), int(sequence))
        assert row["kind"] == record.__struct_config__.tag
        assert row["event_id"] == getattr(record, "event_id", None)
        reward = record if isinstance(record, RewardRecord) else None
        slot = reward and reward.slot
        assert row["slot"] == (slot if slot is None else min(slot, 2**63 - 1))
        for name, field in (("reward", "value"), ("reward_id",) * 2, ("action_id",) * 2):
            assert row[name] == (reward and getattr(reward, field))
        if isinstance(record, SpecRecord):
            assert row["spec"] == record.digest
        if isinstance(record, ArtifactRecord):
            assert row["artifact"] == record.version

        made = record if isinstance(record, DecisionRecord) else None
        for name in (
            *("chosen", "action_ids", "deferred", "unserved", "snapshot_id", "user"),
            *(() if isinstance(record, ArtifactRecord) else ("artifact",)),
        ):
            assert row[name] == (made and getattr(made, name))
        if made is None:
            assert row["pmf"] is None
            continue
        assert row["holdout"] == (None if made.unserved else made.holdout)
        assert (row["slots"], row["actions"]) == (len(made.chosen), len(made.action_ids))
        assert row["action"] == made.action_ids[made.chosen[0]]
        assert row["propensity"] == made.pmfs()[0, made.chosen[0]]
        assert row["pmf"] == made.pmfs().ravel().tolist()
        assert repr(dict(row["scores"])) == repr(
            {source: scores.tolist() for source, scores in made.source_scores().items()}
        )
        assert repr(plain(row["context"])) == repr(made.context)
        assert repr(row["features"] and list(map(plain, row["features"]))) == repr(made.features)
        rules = made.rules or NO_RULES
        for name in ("filter", "now_ms", "control", "short"):
            assert row[name] == getattr(rules, name)
        assert (row["did"] and dict(row["did"])) == (rules.did and dict(rules.did)) or not rules.did
        assert dict(row["removed"] or []) == {
            rule: msgspec.structs.asdict(removed) for rule, removed in rules.removed.items()
        }
        assert (row["page"] or b"") == rules.page
        assert (row["boosts"] or []) == np.frombuffer(rules.boosts, "<f4").tolist()
        for name in ("placed", "unplaced"):
            assert [tuple(each.values()) for each in row[name] or []] == [
                msgspec.structs.astuple(each) for each in getattr(rules, name)
            ]
        assert (row["failed"] and dict(row["failed"])) == made.failed or made.failed == {}


def plain(features: list | None) -> dict | None:
    """A feature map as the record has it."""
    if features is None:
        return None
    return {
        name: next(each for each in value.values() if each is not None) for name, value in features
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_batch_names_its_file_and_row_group(tmp_path, layout):
    log = [(f"1700000000000-{n + 1}", encode(RewardRecord(f"e{n}", 1.0))) for n in range(5)]
    path = put(tmp_path, layout, log, groups=2)
    groups = list(ArchiveReader(tmp_path, "home").columns(["id", "reward"]))
    assert [(group.file, group.number, len(group.batch)) for group in groups] == [
        (str(path), 0, 2),
        (str(path), 1, 2),
        (str(path), 2, 1),
    ]
    assert f"{path}, row group 1: damaged (so)" in groups[1].damaged("so").message


def test_a_column_that_nobody_has_is_refused(tmp_path):
    with pytest.raises(ArchiveError, match="no column 'nope'"):
        ArchiveReader(tmp_path, "home").columns(["id", "nope"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_types_are_those_of_the_schema_whatever_the_layout(tmp_path, layout):
    log = [
        ("1700000000000-1", encode(decision(features=[{"x": 1.0}, None, {"t": ["a", "b"]}]))),
        ("1700000000000-2", encode(ActivationRecord("e"))),
    ]
    put(tmp_path, layout, log)
    (group,) = ArchiveReader(tmp_path, "home").columns(COLUMNS.names)
    assert group.batch.schema.equals(COLUMNS)
    group.batch.validate(full=True)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_entry_that_an_earlier_build_could_not_decode_has_its_columns(tmp_path, layout):
    """Its kind is derived again by whoever reads."""
    log = [
        ("1700000000000-1", encode(RewardRecord("e0", 0.5))),
        ("1700000000000-2", encode(decision("e1"))),
        ("1700000000000-3", b"junk"),
    ]
    path = put(tmp_path, layout, log)
    table = pq.read_table(path)
    held = pq.ParquetFile(path).metadata.metadata
    at = table.schema.get_field_index("kind")
    unknown = pa.array(["reward", "undecodable", "undecodable"], table.schema.field(at).type)
    table = table.set_column(at, table.schema.field(at), unknown)
    record = table.schema.get_field_index("record")
    whole = pa.array([table["record"][0].as_py(), *(data for _, data in log[1:])], pa.binary())
    table = table.set_column(record, table.schema.field(record), whole)
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({key: held[key] for key in held if b"banditloop" in key})

    reader = ArchiveReader(tmp_path, "home")
    (group,) = reader.columns(["id", "kind", "event_id", "pmf"], kinds=["decision"])
    assert group.batch.to_pylist() == [
        {"id": "1700000000000-2", "kind": "decision", "event_id": "e1", "pmf": [1 / 3] * 3}
    ]
    assert list(reader.entries()) == entries_of(log)


def test_the_same_entries_make_the_same_bytes_whoever_writes_them():
    log = [("5-1", encode(decision("a"))), ("5-2", encode(RewardRecord("a", 1.0)))]
    committed = Range(START, "5-1", "5-2", 2)
    files = [io.BytesIO(), io.BytesIO()]
    for file in files:
        write_range(file, "home", committed, iter(log))
    assert files[0].getvalue() == files[1].getvalue()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_specs_and_builds_are_found_without_the_rest(tmp_path, layout):
    log = [
        ("1700000000000-1", encode(SpecRecord("d" * 32, "s"))),
        ("1700000000000-2", encode(decision())),
        ("1700000000000-3", encode(BuildRecord({"fold": "2"}))),
    ]
    put(tmp_path, layout, log, groups=1)
    reader = ArchiveReader(tmp_path, "home")
    assert reader.specs() == [("1700000000000-1", "d" * 32)]
    assert reader.builds() == [("1700000000000-3", {"fold": "2"})]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_range_says_how_many_bytes_its_records_have(tmp_path, layout):
    log = [(f"1700000000000-{n + 1}", encode(decision(f"e{n}"))) for n in range(9)]
    put(tmp_path, layout, log, groups=2)
    (stored,) = ArchiveReader(tmp_path, "home").ranges()
    assert stored.record_bytes == pytest.approx(sum(len(data) for _, data in log), rel=0.5)
    if layout == 5:
        assert stored.record_bytes == sum(len(data) for _, data in log)


@pytest.mark.parametrize(
    ("layout", "as_written"),
    [(2, without_profile), (3, without_rules), (4, without_apprentice)],
    ids=["2", "3", "4"],
)
def test_a_file_of_an_older_layout_is_read_and_written_anew(tmp_path, layout, as_written):
    log = [(f"1700000000000-{n + 1}", encode(decision(f"e{n}", user="u"))) for n in range(9)]
    older = [(at, as_written(data)) for at, data in log]
    path = put(tmp_path, 5, older, groups=4)

    # As that build wrote it: without the columns that no record of its own needed.
    file = pq.ParquetFile(path)
    kept = [name for name in COLUMNS.names if name not in NEVER_SAID[layout]]
    groups = [
        file.read_row_group(n).select([*kept, "record", "checksum"])
        for n in range(file.num_row_groups)
    ]
    metadata = file.metadata.metadata
    header = metadata[b"banditloop"].replace(b'"format":5', f'"format":{layout}'.encode())
    with pq.ParquetWriter(path, SCHEMAS[layout], store_schema=False) as writer:
        for group in groups:
            columns = [
                group[field.name].cast(field.type)
                if field.name in group.schema.names
                else pa.nulls(len(group), field.type)
                for field in SCHEMAS[layout]
            ]
            writer.write_table(pa.table(columns, schema=SCHEMAS[layout]))
        writer.add_key_value_metadata({**metadata, b"banditloop": header})

    reader = ArchiveReader(tmp_path, "home")
    assert list(reader.raw()) == older
    asked = ["user", "profile", "removed", "placed", "boosts", "apprentice"]
    (first, *_) = next(iter(reader.columns(asked))).batch.to_pylist()
    assert first == {**dict.fromkeys(asked), "user": "u"}
    assert not [audit for audit in audit_columns(reader, 9) if audit.faults or audit.error]

    assert [group.is_due for group in Compactor(tmp_path, "home", settle_s=0).compact()] == [True]
    list(Compactor(tmp_path, "home", settle_s=0).remove())
    assert list(ArchiveReader(tmp_path, "home").raw()) == older
    assert b'"format":5' in pq.ParquetFile(path).metadata.metadata[b"banditloop"]


def test_what_a_rule_removed_is_read_without_the_records(tmp_path):
    rules = Ruled(
        removed={"filter.where": Removed(["x", "y"], 300)},
        boosts=np.array([0.5, 0, 0], "<f4").tobytes(),
        control="5-0",
        placed=[Placed(1, "p")],
        unplaced=[Unplaced(0, "q", "filtered")],
        short="diversity",
    )
    log = [
        ("1700000000000-1", encode(decision("e0", rules=rules))),
        ("1700000000000-2", encode(decision("e1"))),
    ]
    put(tmp_path, 5, log)
    (group,) = ArchiveReader(tmp_path, "home").columns(RULED.names)
    ruled, plain = group.batch.to_pylist()
    assert ruled == {
        **dict.fromkeys(RULED.names),
        "removed": [("filter.where", {"ids": ["x", "y"], "count": 300})],
        "boosts": [0.5, 0.0, 0.0],
        "control": "5-0",
        "placed": [{"slot": 1, "action": "p"}],
        "unplaced": [{"slot": 0, "action": "q", "reason": "filtered"}],
        "short": "diversity",
    }
    assert set(plain.values()) == {None}


def test_what_an_apprentice_would_have_chosen_is_read_without_the_records(tmp_path):
    own = Apprentice("source", np.array([0.25, 0.75, 0.0]).tobytes(), [1])
    log = [
        ("1700000000000-1", encode(decision("e0", apprentice=own))),
        ("1700000000000-2", encode(decision("e1"))),
    ]
    put(tmp_path, 5, log)
    (group,) = ArchiveReader(tmp_path, "home").columns(["apprentice"])
    assert group.batch["apprentice"].to_pylist() == [
        {"served": "source", "pmf": [0.25, 0.75, 0.0], "chosen": [1]},
        None,
    ]
    assert list(ArchiveReader(tmp_path, "home").raw()) == log


@pytest.mark.parametrize("names", [["chosen", "pmf"], ["action_ids", "placed"], ["id", "slots"]])
def test_a_page_on_which_all_is_placed_has_nothing_that_was_chosen_and_is_read(tmp_path, names):
    ruled = Ruled(placed=[Placed(0, "p")])
    placed = decision("e2", ids=(), chosen=(), rules=ruled)
    log = [(f"{at}-0", encode(each)) for at, each in ((1, decision("e1")), (2, placed))]
    put(tmp_path, 5, log)
    reader = ArchiveReader(tmp_path, "home")
    [group] = reader.columns([*names, "event_id"])
    assert group.batch["event_id"].to_pylist() == ["e1", "e2"]
    assert [record for _, record in reader.raw()] == [data for _, data in log]
    assert not any(audit.error for audit in audit_columns(reader, 20))
