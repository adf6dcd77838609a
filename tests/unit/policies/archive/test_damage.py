"""A file that is not what it was is refused, by all who need what is wrong; errors name file and row group."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.first_layout import put_layout_1
from support.logs import decision

from bandits.errors import ArchiveError
from bandits.log.codec import encode
from bandits.log.positions import START
from bandits.log.records import Placed, Removed, RewardRecord, Ruled
from policies.archive import range_file
from policies.archive.archive import ArchiveReader, ArchiveWriter
from policies.archive.audit import RowSample, audit_columns
from policies.archive.layouts import FORMAT, GROUPS, RowGroups
from policies.archive.range_file import Range
from simulator.doctor.checks.archived_columns import archived_columns
from simulator.logs.archive.decided import DecisionReader

LAYOUTS = [1, 5]
GROUP = 4
ENDS = [f"1700000000000-{n}" for n in (4, 8, 10)]
RULES = Ruled(removed={"filter": Removed(["x"], 1)}, boosts=b"\0" * 12, placed=[Placed(1, "p")])


def written(root: Path, layout: int, count: int = 10) -> Path:
    """A file of decisions and rewards, in row groups of GROUP entries."""
    log = []
    for n in range(count):
        record = (
            RewardRecord(f"e{n - 1}", 1.0)
            if n % 2
            else decision(f"e{n}", scores={"cf": b"\0" * 12}, rules=RULES)
        )
        log.append((f"1700000000000-{n + 1}", encode(record)))
    committed = Range("0-0", log[0][0], log[-1][0], count)
    if layout == 1:
        return put_layout_1(root, "home", committed, log, group_entries=GROUP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(range_file, "GROUP_ENTRIES", GROUP)
        ArchiveWriter(root, "home").write(committed, log, lambda _: None)
    return root / "home" / committed.path


def rewrite(
    path: Path, change: Callable[[pa.Table], pa.Table], *, keep_groups=range(99), said=None
) -> None:
    """Change what a file holds, and leave what it says of itself."""
    file = pq.ParquetFile(path)
    held = {key: each for key, each in file.metadata.metadata.items() if b"banditloop" in key}
    groups = [
        change(file.read_row_group(n)) for n in range(file.num_row_groups) if n in keep_groups
    ]
    with pq.ParquetWriter(path, groups[0].schema.remove_metadata(), store_schema=False) as writer:
        for group in groups:
            writer.write_table(group.replace_schema_metadata(None))
        writer.add_key_value_metadata(held | (said or {}))


def changed(name: str, values: Callable[[list], list]) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index(name)
        field = table.schema.field(at)
        column = pa.array(values(table[name].to_pylist()), field.type)
        return table.set_column(at, field, column)

    return change


def readers(root: Path) -> dict[str, Callable[[], object]]:
    reader = ArchiveReader(root, "home")
    return {
        "raw": lambda: list(reader.raw()),
        "entries": lambda: list(reader.entries()),
        "pmf": lambda: list(reader.columns(["pmf"])),
        "everything": lambda: list(
            reader.columns(["chosen", "action_ids", "pmf", "scores", "boosts"])
        ),
    }


def refusals(root: Path) -> dict[str, str]:
    """What each reader says, by its name; those that say nothing are left out."""
    said = {}
    for name, read in readers(root).items():
        try:
            read()
        except ArchiveError as error:
            said[name] = error.message
    return said


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rewriting_a_file_without_a_change_is_no_damage(tmp_path, layout):
    path = written(tmp_path, layout)
    rewrite(path, lambda table: table)
    assert refusals(tmp_path) == {}


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    path = written(tmp_path, 5)
    path.unlink()
    path.mkdir()
    said = refusals(tmp_path)
    assert said.keys() == readers(tmp_path).keys()
    assert all(f"{path} is a folder" in each for each in said.values())
    with pytest.raises(ArchiveError, match="is a folder"):
        ArchiveReader(tmp_path, "home").ranges()


@pytest.mark.parametrize("metadata", [None, {"made": "elsewhere"}])
def test_a_table_of_something_else_is_called_that(tmp_path, metadata):
    path = written(tmp_path, 5)
    pq.write_table(pa.table({"x": [1, 2]}).replace_schema_metadata(metadata), path)
    said = refusals(tmp_path)
    assert said.keys() == readers(tmp_path).keys()
    assert all(
        f"{path}: damaged (it is a table of something else" in each for each in said.values()
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["pmf", "reward", "propensity"])
def test_an_evaluation_compares_a_sample_with_the_records(tmp_path, layout, name):
    """It decodes no record of the others: what contradicts them is in the first row groups here."""
    path = written(tmp_path, layout)
    reader = ArchiveReader(tmp_path, "home")
    evaluation = DecisionReader(reader, START, None, ["id"])
    assert [len(group.batch) for _, group in evaluation.groups()] == [4, 4, 2]
    if name not in pq.read_schema(path).names:
        return

    def other(values: list) -> list:
        return [
            each if each is None else [1 - part for part in each] if name == "pmf" else each / 2
            for each in values
        ]

    rewrite(path, changed(name, other))
    with pytest.raises(ArchiveError, match=f"{path}, row group 0: damaged .*entry 1700000000000-"):
        list(DecisionReader(ArchiveReader(tmp_path, "home"), START, None, ["id"]).groups())


def test_of_many_row_groups_a_few_are_compared(tmp_path):
    written(tmp_path, 5, 80)
    sample, looked = RowSample(), []
    for group in ArchiveReader(tmp_path, "home").columns(
        ["id"], check=lambda rows, group: sample.check(Watched(rows, looked), group)
    ):
        assert len(group.batch) == GROUP
    assert looked == [0, 1, 2, 3, 7, 15]


class Watched:
    """The rows of a file, and which row groups were picked from."""

    def __init__(self, rows, looked: list[int]) -> None:
        self.rows, self.looked = rows, looked

    def __getattr__(self, name: str):
        return getattr(self.rows, name)

    def picked(self, number: int, *rest):
        self.looked.append(number)
        return self.rows.picked(number, *rest)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_file_cut_short_is_refused(tmp_path, layout, share):
    path = written(tmp_path, layout)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    said = refusals(tmp_path)
    assert said.keys() == readers(tmp_path).keys()
    assert all(f"{path}: damaged" in each for each in said.values())


@pytest.mark.parametrize(("layout", "read_by_all"), [(1, "id"), (5, "kind")])
def test_a_page_that_was_changed_names_its_row_group(tmp_path, layout, read_by_all):
    path = written(tmp_path, layout)
    metadata = pq.ParquetFile(path).metadata
    column = metadata.row_group(1).column(metadata.schema.names.index(read_by_all))
    data = bytearray(path.read_bytes())
    at = column.dictionary_page_offset or column.data_page_offset
    data[at + column.total_compressed_size - 3] ^= 0x55
    path.write_bytes(data)
    said = refusals(tmp_path)
    assert said.keys() == readers(tmp_path).keys()
    assert all(f"{path}, row group 1: damaged" in each for each in said.values())


@pytest.mark.parametrize(
    ("said", "noticed"),
    [
        (RowGroups([], frozenset()), "what it says of its row groups is of another file"),
        (RowGroups(["1-1", "1-2", "1-3"], frozenset()), "is of another file"),
        (RowGroups(ENDS, frozenset({"pmf"})), "has 0 elements"),
        (RowGroups(ENDS, frozenset({"context"})), "are not those of its record"),
        (RowGroups(ENDS, frozenset({"colour"})), "names no column"),
    ],
)
def test_what_a_file_says_of_its_row_groups_has_to_be_true(tmp_path, said, noticed):
    path = written(tmp_path, FORMAT)
    rewrite(path, lambda table: table, said={GROUPS: msgspec.json.encode(said)})
    refused = refusals(tmp_path)
    assert {"raw", "entries"} <= refused.keys()
    assert all(f"{path}" in each and noticed in each for each in refused.values())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["id", "kind", "record", "slots"])
def test_a_column_that_is_missing_is_named(tmp_path, layout, name):
    path = written(tmp_path, layout)
    rewrite(path, lambda table: table.drop_columns([name]))
    for each in refusals(tmp_path).values():
        assert f"{path}: damaged (it has no column '{name}')" in each
    assert len(refusals(tmp_path)) == 4


@pytest.mark.parametrize(
    ("layout", "name", "kind"),
    [
        (1, "id", pa.binary()),
        (1, "record", pa.string()),
        (1, "reward", pa.float32()),
        (2, "reward", pa.float32()),
        (2, "pmf", pa.list_(pa.float32())),
        (2, "chosen", pa.list_(pa.int64())),
        (2, "checksum", pa.int64()),
    ],
)
def test_a_column_of_another_type_is_named(tmp_path, layout, name, kind):
    path = written(tmp_path, layout)

    def change(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index(name)
        values = [None if name == "record" else each for each in table[name].to_pylist()]
        if name == "id":
            values = [each.encode() for each in values]
        return table.set_column(at, name, pa.array(values, kind))

    rewrite(path, change)
    said = refusals(tmp_path)
    assert len(said) == 4
    assert all(f"{path}: damaged (its column '{name}' is" in each for each in said.values())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kept", [[0, 1], [1, 2], [0]])
def test_a_missing_row_group_is_noticed_before_anything_is_read(tmp_path, layout, kept):
    path = written(tmp_path, layout)
    rewrite(path, lambda table: table, keep_groups=kept)
    said = refusals(tmp_path)
    assert len(said) == 4
    for each in said.values():
        assert f"{path}: damaged (it holds" in each
        assert f"{len(kept)} row groups, not the 10 that it says" in each


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_that_ends_with_another_entry_is_noticed(tmp_path, layout):
    path = written(tmp_path, layout)
    last = {"1700000000000-10": "1700000000000-11"}
    rewrite(path, changed("id", lambda ids: [last.get(each, each) for each in ids]))
    said = refusals(tmp_path)
    assert "raw" in said
    assert "entries" in said
    assert all("ends with entry 1700000000000-11" in each for each in said.values())


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("pmf", lambda rows: [row and [0.5, 0.25, 0.25] for row in rows]),
        ("chosen", lambda rows: [row and [2] for row in rows]),
        ("action_ids", lambda rows: [row and ["a", "b", "z"] for row in rows]),
        ("scores", lambda rows: [row and [("cf", [0.0, 0.0, 1.0])] for row in rows]),
        ("context", lambda rows: [row and [] for row in rows]),
        ("event_id", lambda rows: ["other" for _ in rows]),
        ("deferred", lambda rows: [None if row is None else not row for row in rows]),
        ("spec", lambda rows: [row and "other" for row in rows]),
        ("reward", lambda rows: [row and 2.0 for row in rows]),
        ("placed", lambda rows: [row and [(1, "z")] for row in rows]),
        ("removed", lambda rows: [row and [("filter", (["y"], 1))] for row in rows]),
        ("checksum", lambda rows: [row ^ 1 for row in rows]),
    ],
)
def test_a_column_that_contradicts_its_record_is_noticed_by_who_reads_records(
    tmp_path, name, values
):
    """The checksum is of the true record; it names the first row group in which it differs."""
    path = written(tmp_path, 5)
    rewrite(path, changed(name, values))
    said = refusals(tmp_path)
    assert said.keys() == {"raw", "entries"}
    for each in said.values():
        assert f"{path}, row group 0: damaged (the columns of entry 1700000000000-" in each


@pytest.mark.parametrize(
    ("name", "values", "seen_by"),
    [
        ("pmf", lambda rows: [row and row[:-1] for row in rows], {"pmf", "everything"}),
        ("pmf", lambda rows: [None for _ in rows], {"pmf", "everything"}),
        ("chosen", lambda rows: [row and [3] for row in rows], {"everything"}),
        ("chosen", lambda rows: [row and [-1] for row in rows], {"everything"}),
        ("chosen", lambda rows: [row and [0, 1] for row in rows], {"everything"}),
        ("action_ids", lambda rows: [row and [*row, "z"] for row in rows], {"everything"}),
        ("scores", lambda rows: [row and [("cf", [0.0])] for row in rows], {"everything"}),
        ("boosts", lambda rows: [row and row[1:] for row in rows], {"everything"}),
        ("slots", lambda rows: [row and 2 for row in rows], {"pmf", "everything"}),
        ("actions", lambda rows: [None for _ in rows], {"pmf", "everything"}),
    ],
)
def test_lists_that_do_not_fit_slots_and_actions_are_refused(tmp_path, name, values, seen_by):
    path = written(tmp_path, 5)
    rewrite(path, changed(name, values))
    said = refusals(tmp_path)
    assert said.keys() == seen_by | {"raw", "entries"}
    assert all(f"{path}, row group 0: damaged (row 0: " in each for each in said.values())


@pytest.mark.parametrize(
    "feature",
    [
        {"number": None, "flag": None, "text": None, "texts": None},
        {"number": 1.0, "flag": None, "text": None, "texts": ["a"]},
        {"number": None, "flag": None, "text": "a", "texts": ["a", "b"]},
    ],
)
def test_a_feature_of_no_kind_or_of_several_is_refused_by_who_reads_records(tmp_path, feature):
    path = written(tmp_path, 5)
    rewrite(path, changed("context", lambda rows: [row and [("hour", feature)] for row in rows]))
    said = refusals(tmp_path)
    assert said.keys() == {"raw", "entries"}
    assert all(f"{path}, row group 0: damaged (a feature is" in each for each in said.values())


def test_a_decision_without_any_list_is_refused(tmp_path):
    path = written(tmp_path, 5)

    def change(table: pa.Table) -> pa.Table:
        for name in ("slots", "actions", "chosen", "action_ids", "pmf", "scores", "placed"):
            table = changed(name, lambda rows: [None for _ in rows])(table)
        return table

    rewrite(path, change)
    said = refusals(tmp_path)
    assert len(said) == 4
    assert all("row group 0: damaged (row 0: a decision has" in each for each in said.values())


def faults(root: Path, limit: int = 20) -> list[tuple[int, str, str]]:
    return [
        (audit.number, fault.entry, fault.column)
        for audit in audit_columns(ArchiveReader(root, "home"), limit)
        for fault in audit.faults
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_audit_of_what_was_written_finds_nothing(tmp_path, layout):
    written(tmp_path, layout)
    audits = list(audit_columns(ArchiveReader(tmp_path, "home"), 20))
    assert [(audit.number, audit.entries, audit.error) for audit in audits] == [
        (0, 4, ""),
        (1, 4, ""),
        (2, 2, ""),
    ]
    assert faults(tmp_path) == []
    (finding,) = archived_columns(ArchiveReader(tmp_path, "home"))
    assert (finding.check, finding.severity) == ("archive_columns", "ok")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("propensity", lambda rows: [row and 0.5 for row in rows]),
        ("action", lambda rows: [row and "z" for row in rows]),
        ("ms", lambda rows: [row + 1 for row in rows]),
        ("holdout", lambda rows: [None for _ in rows]),
    ],
)
def test_an_audit_names_a_column_that_no_record_is_made_of(tmp_path, layout, name, values):
    """Readers of records do not see it: its value follows from the other columns."""
    path = written(tmp_path, layout)
    rewrite(path, changed(name, values))
    first = "1700000000000-1"
    assert faults(tmp_path)[0] == (0, first, name)
    (finding,) = archived_columns(ArchiveReader(tmp_path, "home"))
    assert finding.severity == "failure"
    assert f"{path}, row group 0, entry {first}: {name}" in finding.message
    assert finding.figures["contradictions"] == 3


def test_an_audit_names_a_record_that_does_not_come_out_of_its_columns(tmp_path):
    path = written(tmp_path, 5)
    rewrite(path, changed("event_id", lambda rows: ["other" for _ in rows]))
    assert faults(tmp_path)[0] == (0, "1700000000000-1", "record")
    (finding,) = archived_columns(ArchiveReader(tmp_path, "home"))
    assert "entry 1700000000000-1: record" in finding.message


def test_an_audit_goes_on_past_a_row_group_that_cannot_be_read(tmp_path):
    path = written(tmp_path, 5)
    rewrite(path, changed("pmf", lambda rows: [row and row[:-1] for row in rows]))
    errors = [audit.error for audit in audit_columns(ArchiveReader(tmp_path, "home"), 20)]
    assert [f"row group {number}: damaged" in error for number, error in enumerate(errors)] == [
        True
    ] * 3
    (finding,) = archived_columns(ArchiveReader(tmp_path, "home"))
    assert finding.severity == "failure"


def test_an_audit_looks_at_a_sample_and_says_how_far_it_is(tmp_path):
    written(tmp_path, 5, count=40)
    told: list[tuple[int, int]] = []
    audits = audit_columns(ArchiveReader(tmp_path, "home"), 3, lambda *at: told.append(at))
    assert [audit.number for audit in audits] == [0, 4, 9]
    assert told == [(1, 1)]
    assert list(audit_columns(ArchiveReader(tmp_path, "nobody"), 3)) == []
    assert list(archived_columns(ArchiveReader(tmp_path, "nobody"))) == []


def test_a_layout_that_only_a_later_build_knows_is_named(tmp_path):
    path = written(tmp_path, 5)
    file = pq.ParquetFile(path)
    held = dict(file.metadata.metadata)
    held[b"banditloop"] = held[b"banditloop"].replace(b'"format":5', b'"format":6')
    table = file.read()
    with pq.ParquetWriter(path, table.schema.remove_metadata(), store_schema=False) as writer:
        writer.write_table(table.replace_schema_metadata(None))
        writer.add_key_value_metadata(held)
    for each in refusals(tmp_path).values():
        assert "it has format 6; this version reads 1 to 5" in each
    assert len(refusals(tmp_path)) == 4
