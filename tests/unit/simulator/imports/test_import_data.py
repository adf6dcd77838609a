"""Tables become the data set that their rows say, and what is wrong is a reason or one line."""

import csv
import gzip
import io
import json
import random
import re
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bandits.errors import DataSetError
from policies.data.data_set import DataSet
from policies.data.manifest import WeightOptions
from simulator.imports import Cleaning, TableFormat, import_data
from simulator.imports.files import delimited

T0 = 1_700_000_000
HEADER = "user_id,item_id,event_type,timestamp,rating\n"


def write(folder: Path, text: str, name: str = "events.csv") -> str:
    path = folder / name
    path.write_bytes(text.encode())
    return str(path)


def rows_of(data_set: DataSet) -> list[tuple]:
    """The events as (user, item, type, seconds, value)."""
    found = []
    for row in pa.Table.from_batches(data_set.events()).to_pylist():
        time = None if row["time"] is None else row["time"].timestamp()
        found.append((row["user"], row["item"], row["type"], time, row["value"]))
    return found


def dropped(data_set: DataSet) -> dict[str, int]:
    return {reason: left.rows for reason, left in data_set.manifest.dropped.items()}


def run(tmp_path: Path, text: str, **options) -> DataSet:
    return import_data(tmp_path / "out", write(tmp_path, text), **options)


EXPECTED = [
    ("ann", "x", "view", float(T0), 5.0),
    ("ann", "y", "buy", float(T0 + 9), None),
    ("bob", "x", "view", float(T0 + 5), 1.5),
]
CSV = HEADER + f"ann,y,buy,{T0 + 9},\nbob,x,view,{T0 + 5},1.5\nann,x,view,{T0},5\n"


def as_json(text: str) -> str:
    names, *lines = (line.split(",") for line in text.splitlines())
    return "".join(
        json.dumps({name: cell for name, cell in zip(names, line, strict=True) if cell}) + "\n"
        for line in lines
    )


def test_columns_that_are_not_used_are_named(tmp_path):
    file = tmp_path / "events.csv"
    file.write_text("user_id,item_id,brand,price\nann,x,acme,3\n")
    notes = import_data(tmp_path / "data", str(file)).manifest.notes
    assert any("not used: brand and price" in note for note in notes)
    file.write_text("user_id,item_id\nann,x\n")
    notes = import_data(tmp_path / "data", str(file)).manifest.notes
    assert not any("not used" in note for note in notes)


def test_a_csv_becomes_events_by_user_and_time(tmp_path: Path):
    data_set = run(tmp_path, CSV)
    assert rows_of(data_set) == EXPECTED
    manifest = data_set.manifest
    assert manifest.columns["user"] == "user_id"
    assert manifest.columns["time_unit"] == "seconds since 1970"
    assert (manifest.rows_read, manifest.dropped, manifest.counts.users) == (3, {}, 2)
    assert [item["id"] for item in data_set.items()] == ["x", "y"]
    data_set.verify()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("e.tsv", CSV.replace(",", "\t").encode()),
        ("e.txt", CSV.replace(",", ";").encode()),
        ("e.csv", b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode()),
        ("e.csv", CSV.replace("ann", '"ann"').encode()),
        ("e.csv.gz", gzip.compress(CSV.encode(), mtime=0)),
        ("e.csv.zst", pa.compress(CSV.encode(), "zstd", asbytes=True)),
        ("misnamed.csv", gzip.compress(CSV.encode(), mtime=0)),
        ("e.jsonl", as_json(CSV).encode()),
        ("e.log", as_json(CSV).encode()),
    ],
)
def test_the_same_table_in_any_form_makes_the_same_events(tmp_path: Path, name: str, data: bytes):
    (tmp_path / name).write_bytes(data)
    assert rows_of(import_data(tmp_path / "out", str(tmp_path / name))) == EXPECTED


def test_parquet_and_several_files_of_other_columns(tmp_path: Path):
    clicks = pa.table(
        {
            "visitorid": pa.array([1, 2], pa.int64()),
            "itemid": pa.array([10.0, None]),
            "timestamp": pa.array([T0 * 1000, T0 * 1000], pa.int64()),
        }
    )
    pq.write_table(clicks, tmp_path / "a.parquet")
    write(tmp_path, f"user,product,time\n1,11,{T0 + 1}\n", "b.csv")

    data_set = import_data(tmp_path / "out", [str(tmp_path / "a.parquet"), str(tmp_path / "b.csv")])
    assert [row[:4] for row in rows_of(data_set)] == [
        ("1", "10", "event", float(T0)),
        ("1", "11", "event", float(T0 + 1)),
    ]
    assert dropped(data_set) == {"no_id": 1}
    assert "b.csv: user is user, item is product" in data_set.manifest.notes[0]


def test_no_header_and_columns_by_place(tmp_path: Path):
    text = f"{T0}|7|8\n{T0 + 1}|7|9\n"
    data_set = run(tmp_path, text, columns={"user": 2, "item": 3, "time": 1})
    assert [row[:2] for row in rows_of(data_set)] == [("7", "8"), ("7", "9")]


def test_ids_stay_as_they_are(tmp_path: Path):
    """Spaces, quotes, line breaks, separators, zeros in front, and texts of 16 bytes and more."""
    ids = [" a ", 'say "hi"', "two\nlines", "a,b", "007", "7", "x" * 16, "x" * 17, "ü" * 400]
    lines = "".join(f'"{i.replace(chr(34), chr(34) * 2)}",i,{T0}\n' for i in ids)
    data_set = run(tmp_path, "user,item,time\n" + lines)
    assert sorted(row[0] for row in rows_of(data_set)) == sorted(ids)


@pytest.mark.parametrize("odd", ["07", "00", "0x7", " 7", "7 ", "7\t", '"7"', "+7", "99999999999"])
def test_ids_that_look_like_whole_numbers_until_one_does_not_stay_as_they_are(
    tmp_path: Path, monkeypatch, odd: str
):
    """What the sample, and the chunks before, hold is no reason to read 07 as 7."""
    original = delimited.row_chunks
    monkeypatch.setattr(
        delimited, "row_chunks", lambda file, **marks: original(file, **marks, size=512)
    )
    ids = [str(i % 40) for i in range(1100)]
    ids[0], ids[1050], ids[1099] = "0", odd, odd
    text = "time,user,item\n" + "\n".join(f"{T0 + i},{name},{name}" for i, name in enumerate(ids))
    plain = "7" if odd == '"7"' else odd
    expected = Counter(plain if name == odd else name for name in ids)
    found = rows_of(run(tmp_path, text))
    assert Counter(row[0] for row in found) == expected
    assert Counter(row[1] for row in found) == expected


def test_whole_numbers_of_a_parquet_file_and_texts_of_a_csv_are_the_same_ids(tmp_path: Path):
    """A number that stands for no id stands for none in either."""
    parquet = tmp_path / "a.parquet"
    pq.write_table(pa.table({"user": [7, -1, 1 << 40, 0], "item": [1, 1, 1, 1]}), parquet)
    csv = write(tmp_path, "user,item\n7,2\n-1,2\n1099511627776,2\n0,2\n07,2\n", "b.csv")
    data_set = import_data(tmp_path / "out", [str(parquet), csv], cleaning=Cleaning(absent="0"))
    assert Counter(row[0] for row in rows_of(data_set)) == {
        "7": 2,
        "-1": 2,
        str(1 << 40): 2,
        "07": 1,
    }
    assert dropped(data_set) == {"no_id": 2}


def test_line_breaks_in_quotes_survive_the_cut_between_chunks(tmp_path: Path, monkeypatch):
    """Also beside marks within cells, which open nothing, and doubled ones."""
    original = delimited.row_chunks
    monkeypatch.setattr(
        delimited, "row_chunks", lambda file, **marks: original(file, **marks, size=64)
    )
    kinds = ('"u{0}"', '"u{0}\nu{0}\n"', 'u{0}"', '"u{0}"",\n""v"')
    cells = [kinds[i % len(kinds)].format(i) for i in range(50)]
    ids = [next(csv.reader(io.StringIO(cell, newline="")))[0] for cell in cells]
    lines = "".join(f"{cell},i{i},{T0}\n" for i, cell in enumerate(cells))
    data_set = run(tmp_path, "user,item,time\n" + lines)
    assert sorted(row[0] for row in rows_of(data_set)) == sorted(ids)


def test_each_wrong_row_is_counted_under_one_reason_with_an_example(tmp_path: Path):
    text = HEADER + (
        f"ann,x,view,{T0},5\n"
        "ann,x,view\n"
        f",x,view,{T0},5\n"
        f"ann,,view,{T0},5\n"
        f"{'u' * 10_000},x,view,{T0},5\n"
        "ann,x,view,yesterday,5\n"
        "ann,x,view,12345,5\n"
        f"ann,x,view,{T0 * 2},5\n"
        f"ann,x,view,{T0 + 1},five\n"
        f"ann,x,view,{T0 + 1},NaN\n"
        f"ann,x,view,{T0 + 1},6\n"
        f"ann,x,view,{T0},5\n"
        "ann,y,view,,\n"
    )
    # A sample of a few rows is all of the file: how times are written is said.
    data_set = run(
        tmp_path,
        text,
        columns={"time_unit": "s"},
        weights=WeightOptions(rating_scale=(1, 5)),
    )
    assert rows_of(data_set) == [("ann", "y", "view", None, None), ("ann", "x", "view", T0, 5.0)]
    left = data_set.manifest.dropped
    assert dropped(data_set) == {
        "unreadable": 1,
        "no_id": 2,
        "id_too_long": 1,
        "time_unreadable": 1,
        "time_too_early": 1,
        "time_in_future": 1,
        "value_unreadable": 1,
        "value_not_finite": 1,
        "value_off_scale": 1,
        "exact_duplicate": 1,
    }
    places = {reason: example.row for reason, example in left.items()}
    assert list(places.values()) == [2, 3, 5, 6, 7, 8, 9, 10, 11, 12]
    assert left["time_unreadable"].example == "timestamp: yesterday"
    assert left["no_id"].file.endswith("events.csv")
    assert data_set.manifest.rows_read == 13


def test_ids_of_ten_kilobytes_are_taken_where_they_may_be_so_long(tmp_path: Path):
    """Whole numbers, texts with spaces, quotes and line breaks, and ids that differ at their end."""
    long = ["7" * 10_240, 'a "b"\n' * 1463, "ü" * 5119 + "x", "ü" * 5119 + "y"]
    rows = [
        '"{}","{}",{}\n'.format(*[each.replace('"', '""')] * 2, T0 + n)
        for n, each in enumerate(long)
    ]
    text = "user,item,time\n" + "".join(rows)
    data_set = run(tmp_path, text, cleaning=Cleaning(longest_id=10_242))
    assert [(user, item) for user, item, *_ in rows_of(data_set)] == [(e, e) for e in sorted(long)]
    with pytest.raises(DataSetError, match=r"nothing is left .* 4 id_too_long .* row 1 of"):
        run(tmp_path, text)


def test_a_rating_that_is_nan_is_counted_whatever_else_the_file_holds(tmp_path: Path):
    data_set = run(tmp_path, "user,item,rating\na,x,NaN\na,y,4\na,z,\na,w,inf\n")
    assert dropped(data_set) == {"value_not_finite": 2}
    assert [row[1] for row in rows_of(data_set)] == ["y", "z"]


def test_events_of_items_that_are_not_listed_and_without_a_time_are_dropped_if_asked(
    tmp_path: Path,
):
    items = write(tmp_path, "id,genre,price\nx,noir,3\nz,drama,NaN\n", "items.csv")
    text = HEADER + f"ann,x,view,{T0},\nann,y,view,{T0},\nbob,x,view,,\n"
    kept = run(tmp_path, text, items=items)
    assert len(rows_of(kept)) == 3
    assert [item["id"] for item in kept.items()] == ["x", "z", "y"]
    assert kept.items()[0]["features"] == {"genre": "noir", "price": 3.0}

    left = run(tmp_path, text, items=items, cleaning=Cleaning(unlisted="drop", untimed="drop"))
    assert dropped(left) == {"no_time": 1, "item_not_listed": 1}
    assert [item["id"] for item in left.items()] == ["x", "z"]


def expected_events(rows: list[tuple], cleaning: Cleaning) -> tuple[list[tuple], Counter]:
    """The same cleaning, row by row."""
    by_user, reasons = defaultdict(list), Counter()
    for row in rows:
        by_user[row[0]].append(row)

    kept = []
    for events in by_user.values():
        events.sort(key=lambda row: row[3])
        once, last = [], {}
        for row in events:
            if cleaning.duplicates == "drop" and row in once:
                reasons["exact_duplicate"] += 1
            else:
                once.append(row)
        spaced = []
        for row in once:
            before = last.get(row[1:3])
            if (
                cleaning.window_s is not None
                and before is not None
                and row[3] - before <= cleaning.window_s
            ):
                reasons["repeated_within_window"] += 1
            else:
                last[row[1:3]] = row[3]
                spaced.append(row)
        most = cleaning.most_a_minute
        times = [row[3] for row in spaced]
        if most and any(b - a < 60 for a, b in zip(times, times[most:], strict=False)):
            reasons["too_many_a_minute"] += len(spaced)
        else:
            kept += spaced

    while True:
        users, items = Counter(r[0] for r in kept), Counter(r[1] for r in kept)
        rare = [r for r in kept if users[r[0]] < cleaning.min_user_events]
        odd = [r for r in kept if r not in rare and items[r[1]] < cleaning.min_item_events]
        if not rare and not odd:
            return kept, reasons
        reasons["user_below_minimum"] += len(rare)
        reasons["item_below_minimum"] += len(odd)
        kept = [r for r in kept if r not in rare and r not in odd]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("bits", [0, 2])
def test_cleaning_is_what_it_is_row_by_row(tmp_path: Path, monkeypatch, seed: int, bits: int):
    """Whatever the seed, and in however many parts, also when they go by way of the disk."""
    monkeypatch.setattr("simulator.imports.importing._part_bits", lambda _: bits)
    monkeypatch.setattr("simulator.imports.spill.MEMORY", 1000)
    chance = random.Random(seed)
    rows = [
        (
            f"u{chance.randrange(12)}",
            f"i{chance.randrange(8)}",
            chance.choice(["view", "buy"]),
            float(T0 + chance.randrange(400)),
            float(chance.randrange(2)),
        )
        for _ in range(400)
    ]
    cleaning = Cleaning(
        duplicates=chance.choice(["keep", "drop"]),
        window_s=chance.choice([None, 5.0, 60.0]),
        most_a_minute=chance.choice([0, 10, 12]),
        min_user_events=chance.choice([1, 20]),
        min_item_events=chance.choice([1, 25]),
    )
    text = HEADER + "".join(f"{u},{i},{k},{t:.0f},{v:g}\n" for u, i, k, t, v in rows)
    expected, reasons = expected_events(rows, cleaning)
    if not expected:
        with pytest.raises(DataSetError, match="nothing is left of the 400 rows"):
            run(tmp_path, text, cleaning=cleaning)
        return

    data_set = run(tmp_path, text, cleaning=cleaning)
    found = rows_of(data_set)
    assert sorted(found) == sorted(expected)
    assert dropped(data_set) == {reason: count for reason, count in reasons.items() if count}

    # One run for each user, in time order.
    runs = [row[0] for i, row in enumerate(found) if not i or found[i - 1][0] != row[0]]
    assert len(runs) == len(set(runs)) == data_set.manifest.counts.users
    assert all(a[0] != b[0] or a[3] <= b[3] for a, b in pairwise(found))


def test_the_same_tables_make_the_same_data_set(tmp_path: Path):
    digests = {run(tmp_path, CSV, name="d").digest for _ in range(2)}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("", {}, "events.csv is empty"),
        (HEADER, {}, "has no rows, only a header"),
        (CSV, {"columns": {"user": "nope"}}, "there is no column 'nope', .* the columns are"),
        (
            CSV.replace("event_type", "customer_id"),
            {},
            "user_id and customer_id could each be the user",
        ),
        (CSV.replace("user_id", "foo"), {}, "no column has a usual name for the user"),
        ("user,item,time\na,b,soon\n", {}, "time.* holds words .'soon' in row 1"),
        (
            "user,item,time\n,b,\n",
            {"columns": {"time": None}},
            r"nothing is left of the 1 rows.*no_id",
        ),
        (CSV, {"weights": WeightOptions({"cart": 2})}, "names 'cart', but no event .* buy, view"),
        (CSV, {"weights": WeightOptions({"view": 0, "buy": 0})}, "has weight 0"),
        (CSV, {"weights": WeightOptions({"view": -1})}, "weight of 'view' is at least 0"),
        (CSV, {"weights": WeightOptions(rating_scale=(5, 1))}, "from its lowest to its highest"),
        (CSV, {"form": TableFormat(separator=";")}, "no column has a usual name"),
        ("word\nanother\n", {}, "no separator is found, the first line is 'word'"),
        (CSV, {"items": "nothing.csv"}, "--items nothing.csv cannot be read: no such file"),
    ],
)
def test_what_cannot_be_imported_is_one_line_that_says_what_to_do(
    tmp_path: Path, text: str, options: dict, said: str
):
    with pytest.raises(DataSetError, match=said) as caught:
        run(tmp_path, text, **options)
    assert "\n" not in caught.value.message
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["events.csv"]


def test_files_that_are_damaged_are_named(tmp_path: Path):
    many = HEADER + "".join(f"u{i},i{i},view,{T0 + i},1\n" for i in range(20_000))
    whole = gzip.compress(many.encode())
    frame = pa.compress(many.encode(), "zstd", asbytes=True)
    latin = CSV.replace("ann", "änn").encode("latin-1")
    parquet = tmp_path / "good.parquet"
    pq.write_table(pa.table({"user": [1], "item": [{"a": 1}]}), parquet)
    for name, data, said in (
        ("cut.csv.gz", whole[: len(whole) // 2], "cut.csv.gz ends in the middle"),
        ("cut.csv.zst", frame[: len(frame) // 2], "cut.csv.zst cannot be read: .*cut off"),
        ("latin.csv", latin, "latin.csv is not text in .*--encoding latin-1"),
        ("cut.parquet", parquet.read_bytes()[:-8], "cut.parquet cannot be read"),
        ("not.parquet", b"user,item\n", "not.parquet is not Parquet"),
        ("list.json", b'[{"user": 1}]', "one JSON list"),
        ("words.jsonl", b"user item\n", "is not JSON Lines"),
        ("good.parquet", parquet.read_bytes(), "no column .* the item; .* user and item.a"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataSetError, match=said):
            import_data(tmp_path / "out", str(tmp_path / name))
        assert not (tmp_path / "out").exists()
    (tmp_path / "latin.csv").write_bytes(latin)
    form = TableFormat(encoding="latin-1")
    data_set = import_data(tmp_path / "out", str(tmp_path / "latin.csv"), form=form)
    assert data_set.coded().user_ids == ("änn", "bob")


def test_a_users_file_and_columns_of_lists_are_kept(tmp_path: Path):
    items = write(
        tmp_path,
        'item_id,genres,taste,made\nx,a|b,"[0.5, 1]",2001-02-03\ny,b,"[1, 0]",\n',
        "items.csv",
    )
    users = write(tmp_path, '{"user_id": "ann", "age": 30}\n', "users.jsonl")
    data_set = run(tmp_path, CSV, items=items, users=users)
    assert data_set.manifest.item_columns == {
        "genres": "list",
        "taste": "vector",
        "made": "time",
    }
    assert data_set.items()[0] == {
        "id": "x",
        "features": {"genres": ["a", "b"]},
        "vectors": {"taste": [0.5, 1.0]},
    }
    assert data_set.users().to_pylist() == [{"id": "ann", "age": 30}]


def test_items_that_lack_a_vector_leave_the_others_theirs(tmp_path: Path):
    items = write(tmp_path, 'item,look\na,"[0.5, 1]"\nb,\nc,"[1, 2]"\n', "items.csv")
    found = run(tmp_path, "user,item\nu,a\nu,b\n", items=[items]).items()
    assert [each.get("vectors") for each in found] == [{"look": [0.5, 1]}, None, {"look": [1, 2]}]


def test_texts_that_stand_for_nothing_are_no_ids_unless_they_are_listed(tmp_path: Path):
    pairs = ["ann,tea", "NA,tea", "NA,mug", "bob,null", "bob,NA", "bob,tea"]
    text = "\n".join(["user,item,time", *(f"{pair},{T0 + i}" for i, pair in enumerate(pairs))])
    events = str(write(tmp_path, f"{text}\n"))

    data_set = import_data(tmp_path / "a", events)
    assert dropped(data_set) == {"no_id": 4}
    assert (data_set.manifest.counts.users, data_set.manifest.counts.items) == (2, 1)

    items = str(write(tmp_path, "id,land\nNA,Namibia\ntea,Assam\n", "items.csv"))
    assert dropped(import_data(tmp_path / "b", events, items=items)) == {"no_id": 3}
    assert dropped(import_data(tmp_path / "c", events, cleaning=Cleaning(absent=""))) == {}


def test_a_data_set_is_named_after_its_folder_and_a_shops_data_after_the_shop(tmp_path: Path):
    events = write(tmp_path, f"user,item,time\nann,tea,{T0}\n")
    for folder, name in (("june", "june"), ("shop/data", "shop")):
        assert import_data(tmp_path / folder, events).manifest.name == name
    assert import_data(tmp_path / "june", events, name="summer").manifest.name == "summer"


LAYOUTS = {
    "ratings.dat": (  # MovieTweetings
        "1::0120735::10::1365029107\n1::0133093::8::1365029108\n2::0120735::9::1365029107\n",
        {"columns": {"user": 1, "item": 2, "value": 3, "time": 4}},
        "the first row has column_1 '1', column_2 '0120735', column_3 '10'",
    ),
    "goodreads_interactions.json": (  # UCSD Book Graph
        (
            '{"user_id": "8842281e", "book_id": "24375664", "rating": 5,'
            ' "date_added": "Sun Jul 30 07:44:10 -0700 2017", "read_at": ""}\n'
            '{"user_id": "8842281e", "book_id": "18245960", "rating": 4,'
            ' "date_added": "Wed Jul 26 09:09:32 -0700 2017", "read_at": ""}\n'
        ),
        {"columns": {"time": "date_added"}},
        "and date_added holds times; say which: --columns '{time: date_added}', or '{time: null}'",
    ),
    "OnlineRetail.csv": (  # UCI Online Retail
        (
            "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
            '536365,85123A,"HEART, WHITE",6,12/1/2010 8:26,2.55,17850,United Kingdom\n'
            "536366,71053,LANTERN,6,12/13/2010 8:28,3.39,,United Kingdom\n"
        ),
        {"columns": {"time_unit": "%m/%d/%Y %H:%M"}},
        "order than ISO 8601 .* say which: --columns '{time_unit: \"%m/%d/%Y %H:%M\"}'",
    ),
    "ta_feng.csv": (
        (
            "TRANSACTION_DT,CUSTOMER_ID,PRODUCT_ID,AMOUNT\n11/1/2000,01104905,4710199010372,2\n"
            "11/13/2000,01104905,4710199010372,2\n"
        ),
        {"columns": {"time": "TRANSACTION_DT", "time_unit": "%m/%d/%Y"}},
        "TRANSACTION_DT holds times",
    ),
    "Gowalla_totalCheckins.txt": (  # SNAP
        (
            "0\t2010-10-19T23:55:27Z\t30.23\t-97.79\t22847\n"
            "0\t2010-10-18T22:17:43Z\t30.26\t-97.76\t420315\n"
        ),
        {"columns": {"user": 1, "item": 5, "time": 2}},
        "column_2 '2010-10-19T23:55:27Z'",
    ),
}
"""Layouts without a preset: a file, what its import needs to be told, and the error that says so."""


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_layout_without_a_preset_is_read_by_what_its_error_says(tmp_path, name):
    """Its times are never left out because nobody calls them so."""
    text, options, said = LAYOUTS[name]
    file = write(tmp_path, text, name)
    with pytest.raises(DataSetError, match=re.escape(said) if ".*" not in said else said):
        import_data(tmp_path / "out", file)
    counts = import_data(tmp_path / "out", file, **options).manifest.counts
    assert counts.untimed == 0
    assert counts.events == text.count("\n") - text.startswith(("Invoice", "TRANS")) - (
        "71053" in text
    )


def test_times_that_are_told_to_be_left_out_are(tmp_path):
    file = write(tmp_path, "user,item,release_date\na,b,2020-01-01\n")
    with pytest.raises(DataSetError, match="release_date holds times"):
        import_data(tmp_path / "out", file)
    assert import_data(tmp_path / "out", file, columns={"time": None}).manifest.counts.untimed == 1


def test_an_items_table_may_be_separated_by_two_colons(tmp_path):
    items = write(tmp_path, "id::title::year\nx::Heat: a film::1995\ny::Run::1998\n", "items.dat")
    data_set = run(tmp_path, CSV, items=items)
    assert data_set.items()[0]["features"]["year"] == 1995


def test_items_whose_time_is_over_before_it_begins_are_told_of(tmp_path):
    rows = "a,2026-03-02,2026-03-01\nb,2026-03-01,2026-03-02\nc,,2026-03-01\nd,2026-03-01,\n"
    items = write(tmp_path, "item_id,available_from,available_until\n" + rows, "items.csv")
    notes = run(tmp_path, CSV, items=[items]).manifest.notes
    (said,) = [note for note in notes if "never offered" in note]
    assert "1 are never offered, such as 'a'" in said


def test_items_of_which_few_or_none_have_a_time_are_offered_at_all_others(tmp_path):
    """A table of a shop in which nothing is new has the column all the same."""
    rows = [f"i{number},,{'2026-03-01' if number == 1500 else ' '}\n" for number in range(1501)]
    items = write(tmp_path, "item_id,available_from,available_until\n" + "".join(rows), "items.csv")
    listed = run(tmp_path, CSV, items=[items]).items()
    until = {item["id"]: item["available_until"] for item in listed if "available_until" in item}
    assert list(until) == ["i1500"]
    assert str(until["i1500"]).startswith("2026-03-01")
    assert not any("available_from" in item for item in listed)


def test_types_are_texts_whatever_a_chunk_holds(tmp_path: Path, monkeypatch):
    """Empty, quoted, between blanks, longer than a word of the processor, first seen late."""
    row_chunks = delimited.row_chunks
    monkeypatch.setattr(
        delimited, "row_chunks", lambda file, **marks: row_chunks(file, **marks, size=64)
    )
    kinds = ["view", "", '"add, to cart"', " view", "ü" * 20, "view", "07", "", "7"]
    rows = [f"u{n},i{n},{kind},{T0 + n}\n" for n, kind in enumerate(kinds)]
    counts = run(tmp_path, "user,item,type,time\n" + "".join(rows)).manifest.counts
    assert counts.types == {
        "add, to cart": 1,
        " view": 1,
        "ü" * 20: 1,
        "07": 1,
        "7": 1,
        "view": 2,
        "event": 2,
    }
