"""Tables as people have them: what they say is read, or one line says what to do."""

import bz2
import decimal
import io
import json
import tarfile
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bandits.errors import DataSetError
from policies.data.data_set import DataSet
from simulator.imports import import_data

T0 = 1_700_000_000
ROWS = "ann,tea,1700000000\nbob,mug,1700000300\n"
HEADER = "user,item,time\n"
SOLD = [("ann", "tea", T0), ("bob", "mug", T0 + 300)]


def events_of(data_set: DataSet) -> list[tuple]:
    rows = pa.Table.from_batches(data_set.events()).to_pylist()
    return [(row["user"], row["item"], int(row["time"].timestamp())) for row in rows]


def stored(folder: Path, name: str, content: bytes | pa.Table) -> str:
    path = folder / name
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    else:
        path.write_bytes(content)
    return str(path)


def lines(*rows: dict) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


NESTED = lines(
    {"user": {"id": "ann", "plan": {"name": "pro"}}, "item": {"id": "tea"}, "time": T0},
    {"user": {"id": "bob", "plan": None}, "item": {"id": "mug", "price": 3}, "time": T0 + 300},
)
KEYS = pa.array([decimal.Decimal(7), decimal.Decimal("1" + "0" * 25)], pa.decimal128(38, 0))
BASKET = lines({"user": "ann", "item": ["tea", "mug"], "time": T0})
UUIDS = [uuid.UUID(int=1), uuid.UUID(int=2)]
TIMES = pa.array([T0, T0 + 300])

READ = {
    "objects within objects": ("a.jsonl", NESTED, SOLD),
    "objects, and rows that are not alike": (
        "a.jsonl",
        NESTED + lines({"user": {"id": 7}, "item": {"id": "tea"}, "time": str(T0)}),
        [*SOLD, ("7", "tea", T0)],
    ),
    "structs": (
        "a.parquet",
        pa.table({"user": [{"id": "ann"}, {"id": "bob"}], "item": ["tea", "mug"], "time": TIMES}),
        SOLD,
    ),
    "decimals, as databases export whole numbers": (
        "a.parquet",
        pa.table({"user": KEYS, "item": ["tea", "mug"], "time": TIMES}),
        [("7", "tea", T0), ("1" + "0" * 25, "mug", T0 + 300)],
    ),
    "UUIDs": (
        "a.parquet",
        pa.table(
            {
                "user": pa.array([each.bytes for each in UUIDS], pa.uuid()),
                "item": ["tea", "mug"],
                "time": TIMES,
            }
        ),
        [(str(UUIDS[0]), "tea", T0), (str(UUIDS[1]), "mug", T0 + 300)],
    ),
    "texts as views and as bytes": (
        "a.parquet",
        pa.table(
            {
                "user": pa.array(["ann", "bob"], pa.string_view()),
                "item": pa.array([b"tea", b"mug"]),
                "time": pa.array([str(T0), str(T0 + 300)], pa.string_view()),
            }
        ),
        SOLD,
    ),
    "doubles, NaN for nobody": (
        "a.parquet",
        pa.table(
            {"user": [7.0, float("nan"), 8.0], "item": [1, 2, 3], "time": [T0, T0 + 1, T0 + 2]}
        ),
        [("7", "1", T0), ("8", "3", T0 + 2)],
    ),
    "a separator at the end of each line": (
        "a.csv",
        (HEADER.strip() + ",\n" + ROWS.replace("\n", ",\n")).encode(),
        SOLD,
    ),
    "a separator at the end of each row but the header": (
        "a.csv",
        (HEADER + ROWS.replace("\n", ",\n")).encode(),
        SOLD,
    ),
    "marks within cells, and doubled": (
        "a.csv",
        b'user,item,time\nann,tea,1700000000\nbob,12" mug,1700000300\n"cy ""c""",tea,1700000000\n',
        [("ann", "tea", T0), ("bob", '12" mug', T0 + 300), ('cy "c"', "tea", T0)],
    ),
    "days with the year first, of one digit or two": (
        "a.csv",
        b"user,item,date\nann,tea,2023/9/8\nbob,mug,2023/10/31\n",
        [("ann", "tea", 1_694_131_200), ("bob", "mug", 1_698_710_400)],
    ),
    "dates that are nearly ISO 8601": (
        "a.csv",
        b"user,item,date\nann,tea,2023-9-8 9:05\nbob,mug,2023-10-31 10:00\n",
        [("ann", "tea", 1_694_163_900), ("bob", "mug", 1_698_746_400)],
    ),
}


@pytest.mark.parametrize("what", READ)
def test_a_table_is_read_as_its_owner_means_it(tmp_path, what):
    """Whatever wrote it: ids keep their digits, times are told by where the year stands."""
    name, content, expected = READ[what]
    data_set = import_data(tmp_path / "out", stored(tmp_path, name, content))
    assert sorted(events_of(data_set)) == sorted(expected)


def tar_of(content: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("events.csv")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


CSV = (HEADER + ROWS).encode()
REFUSED = {
    "a workbook": ("a.csv", b"PK\x03\x04" + bytes(600), "Excel workbook: unpack it first, or save"),
    "bzip2": ("a.csv.bz2", bz2.compress(CSV), "compressed by bzip2: unpack it"),
    "a tar archive": ("a.tar.gz", tar_of(CSV), "is a tar archive: unpack it"),
    "a page of errors": ("a.csv", b"\n<!DOCTYPE html><html>", "is a page of the web"),
    "UTF-16 that does not say so": ("a.csv", CSV.decode().encode("utf-16-le"), "utf-16-le"),
    "Excel's own first line": ("a.csv", b"sep=;\n" + CSV, "begins with 'sep=;': remove that line"),
    "a mark that is not closed": (
        "a.csv",
        CSV + b'cy,"tea,1700000400\n' + ROWS.encode() * 40,
        "a quotation mark that opens a cell in row 3 is not closed, so the 80 lines after it",
    ),
    "a mark that is not closed in the last column of the first row": (
        "a.csv",
        HEADER.encode() + b'cy,tea,"1700000400\n' + ROWS.encode() * 40,
        "opens a cell in row 1 is not closed, so the 80 lines",
    ),
    "a title above the header": (
        "a.csv",
        b"Sales, 2023\n" + CSV,
        r"first line has 2 cells \('Sales', ' 2023'\), and most after it have 3",
    ),
    "a title of one word above the header": (
        "a.csv",
        b"Sales\n" + CSV,
        r"first line has 1 cell \('Sales'\), and most after it have 3",
    ),
    "a header that lacks a name": (
        "a.csv",
        (HEADER + "".join(f"{n},{row}\n" for n, row in enumerate(ROWS.split()))).encode(),
        "first line has 3 cells .* most after it have 4: give each column a name",
    ),
    "baskets in JSON": ("a.jsonl", BASKET, r"column 'item' holds lists \('\[\"tea\",\"mug\"\]'\)"),
    "baskets in CSV": (
        "a.csv",
        b"user;item;time\nann;['tea', 'mug'];1700000000\n",
        "write a row for each of a list's entries",
    ),
    "baskets in Parquet": (
        "a.parquet",
        pa.table({"user": ["ann"], "item": [["tea", "mug"]], "time": [T0]}),
        "column 'item' is list.* which is no id",
    ),
    "fractions for ids": (
        "a.parquet",
        pa.table({"user": [1.5], "item": ["tea"], "time": [T0]}),
        r"column 'user' \(double\) has fractions, which are no ids",
    ),
    "bytes for ids": (
        "a.parquet",
        pa.table({"user": [b"\xff\xfe"], "item": ["tea"], "time": [T0]}),
        "column 'user' .*has bytes that are no text",
    ),
    "bytes for a value": (
        "a.parquet",
        pa.table({"user": ["ann"], "item": ["tea"], "rating": [b"5"]}),
        "column 'rating' is binary, which is no number",
    ),
    "decimal commas alone": (
        "a.csv",
        b"user;item;rating\nann;tea;4,5\nbob;mug;3,5\n",
        r"value_unreadable .*--columns '\{value: null\}' reads no values",
    ),
    "two ways of writing times": (
        "a.csv",
        b"user,item,date\nann,tea,2023/09/08\nbob,mug,2023-09-08T10:00:00Z\n",
        r"mixes units: .*--columns '\{time_unit: (iso|\"%Y/%m/%d\")\}'",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_table_that_cannot_be_read_says_in_one_line_what_to_do(tmp_path, what):
    """Nothing is written: neither a part of a data set nor one that is wrong."""
    name, content, said = REFUSED[what]
    file = stored(tmp_path, name, content)
    with pytest.raises(DataSetError, match=said) as caught:
        import_data(tmp_path / "out", file)
    assert "\n" not in caught.value.message
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ("part-0.csv.gz", "name its files, as in '.*/sales/[*].csv.gz'"),
        ("date=2023-09-08/a.parquet", "name its files, as in '.*/sales/[*]/[*].parquet'"),
        ("_SUCCESS", "name a file, or a glob"),
    ],
)
def test_a_folder_says_how_its_files_are_named(tmp_path, inside, said):
    """Of what a cluster writes: files side by side, or by day."""
    (tmp_path / "sales" / inside).parent.mkdir(parents=True)
    (tmp_path / "sales" / inside).touch()
    with pytest.raises(DataSetError, match=f"--events .*/sales is a folder: {said}"):
        import_data(tmp_path / "out", str(tmp_path / "sales"))


def test_items_of_which_events_name_few_are_told_of(tmp_path):
    """Ids that are written in two ways meet nowhere: the report shows one of each."""
    items = stored(tmp_path, "items.csv", b"id,price\n12,3\n13,4\n")
    file = stored(tmp_path, "events.csv", b"user,item,time\nann,12.0,1700000000\n")
    notes = import_data(tmp_path / "out", file, items=items).manifest.notes
    assert any(
        "lacks 1 of the 1 items that events name, such as '12.0'" in note
        and "the table says '12': are they written alike?" in note
        for note in notes
    )


def test_vectors_that_are_longer_than_most_are_told_of(tmp_path):
    """They are left out of all comparisons; who has none, or the usual length, is not counted."""
    vectors = [[0.1, 0.2], [0.3], [0.4, 0.5], None, [], [0.1, 0.2, 0.3]]
    told = [{"id": f"i{at}", "look": vector} for at, vector in enumerate(vectors)]
    file = stored(tmp_path, "events.csv", CSV)
    items = stored(tmp_path, "items.jsonl", lines(*told))
    (said,) = [
        note
        for note in import_data(tmp_path / "out", file, items=items).manifest.notes
        if "another length" in note
    ]
    assert "2 vectors have 2 numbers; 2 have another length, such as that of 'i1'" in said

    items = stored(tmp_path, "same.jsonl", lines(*told[:1], *told[2:5]))
    notes = import_data(tmp_path / "same", file, items=items).manifest.notes
    assert not any("another length" in note for note in notes)


def test_times_whose_unit_changes_late_in_a_file_are_told_of(tmp_path):
    """The first rows say seconds; the report shows one of those that cannot be meant so."""
    rows = "".join(f"u{n},tea,{(T0 + n) * (1000 if n >= 1500 else 1)}\n" for n in range(2000))
    manifest = import_data(
        tmp_path / "out", stored(tmp_path, "a.csv", (HEADER + rows).encode())
    ).manifest
    assert manifest.counts.events == 1500
    assert any(
        "25% of the rows are left out for a time that cannot be, such as row 1,501" in note
        for note in manifest.notes
    )


def test_items_in_our_own_form_have_their_features(tmp_path):
    """An item's features are an object there; ids of tables are read like those of events."""
    told = [
        {"id": "tea", "features": {"kind": "drink", "price": 4.5}},
        {"id": "mug", "features": {"kind": "ware", "price": 9}},
    ]
    items = stored(tmp_path, "items.jsonl", lines(*told))
    users = stored(tmp_path, "users.parquet", pa.table({"user": [1.0, 2.0], "age": [30, 40]}))
    file = stored(tmp_path, "events.csv", CSV)
    data_set = import_data(tmp_path / "out", file, items=items, users=users)
    found = {item["id"]: item["features"] for item in data_set.items()}
    assert found["tea"] == {"kind": "drink", "price": 4.5}
    assert data_set.users()["id"].to_pylist() == ["1", "2"]

    broken = stored(tmp_path, "broken.parquet", pa.table({"user": [1.5]}))
    with pytest.raises(DataSetError, match=r"the table of users: column 'id' .* fractions"):
        import_data(tmp_path / "again", file, users=broken)


def test_the_id_of_items_and_users_can_be_said(tmp_path):
    """What an error says to write is an option, and another column called id is kept beside it."""
    items = stored(tmp_path, "items.csv", b"id,ref,since\n1,tea,31/01/2023\n2,mug,\n")
    file = stored(tmp_path, "events.csv", CSV)
    out = tmp_path / "out"
    said = {"item": "ref", "available_from": "since"}
    with pytest.raises(DataSetError, match=r"--item-columns '.time_unit: .%d/%m/%Y"):
        import_data(out, file, items=items, item_columns=said)

    found = import_data(out, file, items=items, item_columns={**said, "time_unit": "%d/%m/%Y"})
    listed = {item["id"]: item for item in found.items()}
    assert listed["tea"]["available_from"] == "2023-01-31T00:00:00.000Z"
    assert listed["mug"]["features"] == {"id of the row": 2.0}

    for what in ("items", "users"):
        odd = stored(tmp_path, "odd.csv", b"name,ref\ntea,7\n")
        with pytest.raises(DataSetError, match=f"say which: --{what[:-1]}-columns"):
            import_data(out, file, **{what: odd})
    with pytest.raises(DataSetError, match="--user-columns goes with --users"):
        import_data(out, file, user_columns={"user": "ref"})


def test_what_a_table_of_items_says_nothing_by_is_no_feature(tmp_path):
    """Row numbers that a program wrote in front, and empty cells."""
    text = b',Unnamed: 0,id,size,price,note\n0,0,tea,S,"4,50",\n1,1,mug,,"9,00", \n'
    items, file = stored(tmp_path, "items.csv", text), stored(tmp_path, "events.csv", CSV)
    data_set = import_data(tmp_path / "out", file, items=items)
    found = {item["id"]: item["features"] for item in data_set.items()}
    assert found == {"tea": {"size": "S", "price": "4,50"}, "mug": {"price": "9,00"}}

    notes = "; ".join(data_set.manifest.notes)
    for said in (
        "'' has no name of its own",
        "'Unnamed: 0' has no name",
        "'note' is empty",
        "'price' is text: numbers have a point",
    ):
        assert said in notes


def test_events_inside_of_one_row_are_found_and_said_how_to_be_taken_out(tmp_path):
    """A session with the list of its events, or a whole log as one object, is no table of events."""
    events = [{"aid": 7, "ts": 1}, {"aid": 8, "ts": 2}]
    file = stored(tmp_path, "sessions.jsonl", lines({"session": 1, "events": events}))
    with pytest.raises(DataSetError, match=r"jq -c 'del\(\.events\) \+ \.events\[\]' FILE"):
        import_data(tmp_path / "out", file)

    file = stored(tmp_path, "s.parquet", pa.table({"session": [1], "all events": [events]}))
    with pytest.raises(DataSetError, match=r"'all events' holds lists of objects.*a row for each$"):
        import_data(tmp_path / "out", file)


def test_blanks_around_ids_are_kept_and_said(tmp_path):
    """A comma with a blank after it makes other ids of all items."""
    file = stored(tmp_path, "events.csv", b"user, item\nann, tea\nbob, mug\n")
    data_set = import_data(tmp_path / "out", file)
    assert sorted(item["id"] for item in data_set.items()) == [" mug", " tea"]
    (note,) = data_set.manifest.notes
    assert note.startswith("100% of the first 2 ids in column ' item' begin or end with a blank")
