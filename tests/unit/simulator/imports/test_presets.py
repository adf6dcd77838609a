"""Each preset reads its published layout: the fixtures are in tests/fixtures/presets."""

import gzip
import shutil
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from bandits.errors import DataSetError
from simulator.imports import import_data
from simulator.imports.presets import PRESETS, preset_tables
from simulator.imports.presets.reading import read_texts
from simulator.imports.times import read_times

FIXTURES = Path(__file__).parents[3] / "fixtures" / "presets"
CAFE = ("A Café by Night (1995)", ["Comedy", "Drama"], "1990")

EVENTS = {
    "movielens-100k": [
        ("101", "7", None, 4.0, 881250949),
        ("101", "12", None, 2.0, 881251000),
        ("102", "7", None, 5.0, 891717742),
        ("103", "30", None, 3.0, 878887116),
        ("102", "30", None, 1.0, 891717800),
    ],
    "movielens-100k-recbole": [
        ("101", "7", None, 4.0, 881250949),
        ("102", "7", None, 5.0, 891717742),
        ("103", "30", None, 3.0, 878887116),
    ],
    "movielens-1m": [
        ("1", "1193", None, 5.0, 978300760),
        ("1", "661", None, 3.0, 978302109),
        ("2", "1193", None, 4.0, 978298413),
        (None, None, None, None, None),  # a line that lacks cells is a row without ids
        ("3", "661", None, 3.0, 978301968),
    ],
    "movielens-25m": [
        ("1", "296", None, 5.0, 1147880044),
        ("1", "306", None, 3.5, 1147868817),
        ("2", "296", None, 0.5, 1141415820),
        ("2", "307", None, 4.0, 1141415900),
    ],
    "netflix": [
        ("1488844", "1", None, 3.0, "2005-09-06"),
        ("822109", "1", None, 5.0, "2005-05-13"),
        ("1488844", "2", None, 4.0, "2005-09-05"),
        ("822109", "4500", None, 1.0, "2004-01-26"),
        ("2532865", "4500", None, 4.0, "2005-07-19"),
    ],
    "retailrocket": [
        ("257597", "355908", "view", None, 1433221332.117),
        ("992329", "248676", "view", None, 1433224214.164),
        ("992329", "248676", "addtocart", None, 1433224230),
        ("992329", "248676", "transaction", None, 1433224299.999),
        ("111016", "318965", "view", None, 1433221999.827),
    ],
    "amazon-2014": [
        ("A1REVIEWER0001", "0000013714", None, 5.0, 1252800000),
        ("A1REVIEWER0002", "0000013714", None, 1.0, 1371340800),
        ("A1REVIEWER0001", "0000031852", None, 3.0, 1252900000),
    ],
    "amazon-2023": [
        ("AGUSER0001", "B00YQ6X8EP", None, 5.0, 1588687728.923),
        ("AGUSER0002", "B081TJ8YS3", None, 4.0, 1588615855.070),
        ("AGUSER0002", "B00YQ6X8EP", None, 2.0, 1589665266.052),
    ],
    "yoochoose": [
        ("1", "214536502", "click", None, "2014-04-07T10:51:09.277"),
        ("1", "214536500", "click", None, "2014-04-07T10:54:09.868"),
        ("2", "214662742", "click", None, "2014-04-07T13:56:37.614"),
        ("2", "214662742", "buy", None, "2014-04-07T13:58:44.314"),
    ],
    "taobao": [
        ("1", "2268318", "pv", None, 1511544070),
        ("1", "2333346", "pv", None, 1511561733),
        ("1", "2333346", "cart", None, 1511561800),
        ("100", "2333346", "buy", None, 1511658000),
        ("100", "2576651", "fav", None, 1511572885),
    ],
    "mind": [
        ("U13740", "N55689", "click", None, "2019-11-11T09:05:58"),
        ("U91836", "N39317", "click", None, "2019-11-12T18:11:30"),
        ("U91836", "N58114", "click", None, "2019-11-12T18:11:30"),
    ],
    "lastfm-1k": [
        ("user_000001", 'The "Quoted" Band', "listen", None, "2009-05-04T23:08:57"),
        ("user_000001", "No Id Artist", "listen", None, "2009-05-04T13:54:10"),
        ("user_000002", 'The "Quoted" Band', "listen", None, "2009-05-04T13:52:04"),
    ],
    "book-crossing": [
        ("276725", "034545104X", "implicit", None, None),
        ("276726", "0155061224", "rating", 5.0, None),
        ("276726", "034545104X", "rating", 10.0, None),
    ],
    "steam": [
        ("player one", "328100", "review", None, "2018-01-02"),
        ("player two", "328100", "review", None, "2017-12-31"),
        ("player one", "35140", "review", None, "2018-01-03"),
    ],
    "steam-json": [
        ("player one", "328100", "review", None, "2018-01-02"),
        ("player two", "35140", "review", None, "2018-01-03"),
    ],
    "recbole": [
        ("s1", "p1", None, None, 1577836800),
        ("s1", "p2", None, None, 1577836900),
        ("s2", "p1", None, None, 1577837000),
    ],
    "gorse": [
        ("jack", "10086", "read", None, "2021-10-24T06:42:20.207"),
        ("jack", "10010", "star", None, "2021-10-24T06:50:00"),
        ("jill", "10010", "read", None, "2021-10-24T23:00:00"),
    ],
    "open-bandit": [
        ("81ce123c-03a5648a-2723d2eb-c39b0c7d", "2", "click", None, "2019-11-24T00:00:30.507"),
        ("cef3390e-03a5648a-2723d2eb-c39b0c7d", "1", "click", None, "2019-11-24T00:01:00"),
    ],
}

ITEMS = {
    "movielens-100k": {
        "7": dict(zip(("title", "genres", "decade"), CAFE, strict=True)),
        "12": {"title": "Two Rivers (1988)", "genres": ["Action", "War"], "decade": "1980"},
        "30": {"title": "unknown", "genres": [], "decade": None},
    },
    "movielens-100k-recbole": {
        "7": {"title": "A Café by Night", "genres": ["Comedy", "Drama"], "decade": "1990"},
        "30": {"title": "unknown", "genres": [], "decade": None},
    },
    "movielens-1m": {
        "661": {
            "title": "The Orchard: Part Two (1996)",
            "genres": ["Animation", "Children's", "Musical"],
            "decade": "1990",
        },
        "1193": {"title": "Señal (1975)", "genres": ["Drama"], "decade": "1970"},
        "914": {"title": "No Year", "genres": ["Musical", "Romance"], "decade": None},
    },
    "movielens-25m": {
        "296": {"title": "Long Road, The (1994)", "genres": ["Comedy", "Crime"], "decade": "1990"},
        "306": {"title": "Red Thread (1994)", "genres": ["Drama"], "decade": "1990"},
        "307": {"title": "Blue Thread (1993)", "genres": [], "decade": "1990"},
    },
    "netflix": {
        "1": {"title": "Deep Water", "year": 2003.0},
        "2": {"title": "Island, Race, and Café", "year": 2004.0},
        "4500": {"title": "No Year Known", "year": None},
    },
    "retailrocket": {
        "248676": {"category": "1611", "available": True},
        "355908": {"category": "1338", "available": None},
    },
    "amazon-2014": {
        "0000013714": {
            "title": "Child's tutu",
            "brand": "Coxlures",
            "main_category": None,
            "description": None,
            "categories": ["Toys & Games", "Dress Up", "Dance"],
            "price": 3.17,
        },
        "0000031852": {
            "title": "Ball",
            "brand": None,
            "main_category": None,
            "description": None,
            "categories": ["Toys & Games"],
            "price": None,
        },
    },
    "amazon-2023": {
        "B00YQ6X8EP": {
            "title": "Scented Candle",
            "brand": "Wax Works",
            "main_category": "All Beauty",
            "description": "A candle. It burns.",
            "categories": ["Home", "Candles"],
            "price": 12.5,
        },
        "B081TJ8YS3": {
            "title": "Wrench",
            "brand": None,
            "main_category": "Tools",
            "description": "",
            "categories": [],
            "price": None,
        },
    },
    "mind": {
        "N55689": {
            "category": "sports",
            "subcategory": "football_nfl",
            "title": 'A "great" match',
            "abstract": "What happened last night.",
        },
        "N39317": {
            "category": "news",
            "subcategory": "newsworld",
            "title": "Rain",
            "abstract": None,
        },
        "N58114": {
            "category": "news",
            "subcategory": "newsus",
            "title": "Sun",
            "abstract": "It shines.",
        },
    },
    "book-crossing": {
        "034545104X": {
            "title": 'A "Novel"; Part &amp; Parcel',
            "author": "É. Author",
            "publisher": "Press",
            "year": 2002,
        },
        "0155061224": {
            "title": "Rites",
            "author": "B. Author",
            "publisher": "House",
            "year": None,
        },
    },
    "steam": {
        "328100": {
            "title": "Lost Summoner",
            "developer": "Kotoshiro",
            "genres": ["Action", "Indie"],
            "tags": ["Strategy"],
            "price": 4.99,
        },
        "35140": {
            "title": "Real Pool",
            "developer": None,
            "genres": None,
            "tags": None,
            "price": None,
        },
    },
    "recbole": {
        "p1": {
            "product_title": "Red shoe",
            "categories": ["shoes", "red"],
            "price": 19.5,
            "embedding": [0.1, 0.2],
        },
        "p2": {
            "product_title": 'Blue "hat"',
            "categories": ["hats"],
            "price": None,
            "embedding": [0.3, 0.4],
        },
    },
    "gorse": {
        "10086": {
            "comment": "a match",
            "categories": ["live"],
            "labels": ["badminton", "final"],
            "available_until": None,
        },
        "10010": {
            "comment": "",
            "categories": [],
            "labels": ["topic=go", "length=short"],
            "available_until": datetime(1970, 1, 1, tzinfo=UTC),
        },
    },
    "open-bandit": {
        "1": {
            "item_feature_0": -0.67,
            "item_feature_1": "4b1b6f7a",
            "item_feature_2": "0b9c8d7e",
        },
        "2": {
            "item_feature_0": 0.74,
            "item_feature_1": "4b1b6f7b",
            "item_feature_2": "0b9c8d7e",
        },
    },
}

USERS = {
    "movielens-100k": {"id": "101", "age": 34.0, "gender": "F", "occupation": "writer"},
    "movielens-100k-recbole": {"id": "101", "age": 34.0, "gender": "F", "occupation": "writer"},
    "movielens-1m": {"id": "1", "gender": "F", "age": "1", "occupation": "10"},
    "lastfm-1k": {"id": "user_000001", "gender": "m", "age": None, "country": "Japan"},
    "recbole": {"id": "s1", "country": "NO"},
    "gorse": {"id": "jack", "labels": ["beginner"]},
}


def preset_of(fixture):
    return next(name for name in (fixture, fixture.rpartition("-")[0]) if name in PRESETS)


def tables_of(fixture):
    return preset_tables(preset_of(fixture), [str(FIXTURES / fixture)])


def all_events(tables):
    """Return every event as user, item, type, value and milliseconds, as an import reads them."""
    rows = []
    for table in tables.events:
        mapping = table.mapping
        for part in (table.rows or partial(read_texts, table.file, table.form))(nothing):
            columns = {
                name: part.batch.column(column).to_pylist() if column else None
                for name, column in (
                    ("user", mapping.user),
                    ("item", mapping.item),
                    ("type", mapping.type),
                    ("value", mapping.value),
                )
            }
            count = part.batch.num_rows
            times = [None] * count
            if mapping.time:
                unit = mapping.time_unit or "s"
                read = read_times(part.batch.column(mapping.time), unit).cast(pa.int64())
                times = read.to_pylist()
            for index in range(count):
                user, item, kind, value = (
                    column[index] if column else None for column in columns.values()
                )
                rows.append(
                    (
                        user or None,
                        item or None,
                        kind or mapping.event_type,
                        float(value) if value else None,
                        times[index],
                    )
                )
    return rows


def nothing(*_):
    """Pass over an unreadable row."""


def in_ms(moment):
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()
    return None if moment is None else round(moment * 1000)


def test_every_preset_has_a_fixture_and_its_page():
    assert {preset_of(fixture) for fixture in EVENTS} == set(PRESETS)
    assert set(EVENTS) == {path.name for path in FIXTURES.iterdir() if path.is_dir()}
    assert all(preset.address.startswith("http") for preset in PRESETS.values())
    names = [name for preset in PRESETS.values() for name in (preset.name, *preset.aliases)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("fixture", EVENTS)
def test_the_events_of_a_layout_are_read(fixture):
    expected = [(*row[:4], in_ms(row[4])) for row in EVENTS[fixture]]
    assert all_events(tables_of(fixture)) == expected


@pytest.mark.parametrize("fixture", EVENTS)
def test_the_items_and_users_of_a_layout_are_read(fixture):
    tables = tables_of(fixture)
    items = tables.items and {row.pop("id"): row for row in tables.items.to_pylist()}
    assert items == ITEMS.get(fixture)
    assert (tables.users and tables.users.to_pylist()[0]) == USERS.get(fixture)


def test_rows_that_are_left_out_or_make_several_keep_their_numbers():
    def numbers(fixture):
        tables = tables_of(fixture)
        return [
            [p.number(i) for i in range(p.batch.num_rows)] for p in tables.events[0].rows(nothing)
        ]

    assert numbers("mind") == [[1, 2, 2]]
    assert numbers("netflix") == [[2, 3, 5]]
    assert numbers("open-bandit") == [[2, 3]]


def test_files_may_be_compressed_and_named_one_by_one(tmp_path):
    for name in ("yoochoose-clicks.dat", "yoochoose-buys.dat"):
        with gzip.open(tmp_path / f"{name}.gz", "wb") as file:
            file.write((FIXTURES / "yoochoose" / name).read_bytes())
    assert all_events(preset_tables("yoochoose", [str(tmp_path)])) == all_events(
        tables_of("yoochoose")
    )
    tables = preset_tables("yoochoose", [str(tmp_path / "yoochoose-buys.dat.gz")])
    assert [event[2] for event in all_events(tables)] == ["buy"]
    assert len(all_events(preset_tables("yoochoose", [f"{tmp_path}/*.dat.gz"]))) == 4
    assert len(all_events(preset_tables("yoochoose", [f"file://{tmp_path}/*clicks*"]))) == 3
    with pytest.raises(DataSetError, match="no such file"):
        preset_tables("yoochoose", [f"{tmp_path}/absent"])
    tables = preset_tables("yoochoose", [f"file://{tmp_path}"])
    assert len(all_events(tables)) == 4


def test_the_ratings_alone_of_amazon_are_read(tmp_path):
    (tmp_path / "ratings_Books.csv").write_text("A1,000B,5.0,1252800000\nA2,000C,1.0,1371340800\n")
    events = all_events(preset_tables("amazon-2014", [str(tmp_path)]))
    assert events[0] == ("A1", "000B", None, 5.0, 1252800000000)

    names = "user_id,parent_asin,rating,timestamp"
    (tmp_path / "Toys.csv").write_text(f"{names}\nAG1,B00,4.0,1588687728923\n")
    events = all_events(preset_tables("amazon-2023", [str(tmp_path / "Toys.csv")]))
    assert events == [("AG1", "B00", None, 4.0, 1588687728923)]


@pytest.mark.parametrize("fixture", EVENTS)
def test_an_import_makes_a_data_set_of_every_layout(fixture, tmp_path):
    data = import_data(tmp_path / "data", str(FIXTURES / fixture), preset=preset_of(fixture))
    readable = [event for event in EVENTS[fixture] if event[0]]
    assert data.manifest.counts.events == len(readable)
    assert data.manifest.counts.untimed == sum(event[4] is None for event in readable)
    assert {item["id"] for item in data.items()} >= {event[1] for event in readable}
    assert set(data.manifest.dropped) <= {"no_id"}


def test_weights_scale_and_remarks_go_along():
    tables = tables_of("retailrocket")
    assert tables.weights.types == {"view": 1, "addtocart": 3, "transaction": 10}
    assert tables_of("movielens-25m").weights.rating_scale == (0.5, 5)
    assert "no times" in tables_of("mind").notes[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("retail-rocket", r"there is no preset 'retail-rocket'; there are movielens-100k, .* did"),
        ("netflix", r"preset netflix: there is no combined_data_\*.txt or mv_\*.txt in .*; https"),
    ],
)
def test_an_unknown_preset_or_an_absent_file_is_one_line(name, message, tmp_path):
    with pytest.raises(DataSetError, match=message) as error:
        preset_tables(name, [str(tmp_path)])
    assert "\n" not in error.value.message


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        (
            "retailrocket",
            "events.csv",
            "user_id,item_id\nu,i\n",
            r"preset retailrocket: there is no column 'visitorid'; .* are user_id and item_id",
        ),
        ("taobao", "UserBehavior.csv", "1,2,3,4\n", "has 4 columns, not the 5"),
        (
            "taobao",
            "UserBehavior.csv",
            "1,2,1511544070,3,pv\n",
            "'time' should hold times, and row 1 has 'pv'",
        ),
        ("taobao", "UserBehavior.csv", "", "UserBehavior.csv is empty"),
        ("movielens-1m", "ratings.dat", "1\t2\t3\t4\n", "'time' should hold times"),
        ("netflix", "mv_1.txt", "1,2,2005-01-01\n", "'movie' is empty in row 1"),
        (
            "open-bandit",
            "men.csv",
            "timestamp,item_id\n2019-11-24,1\n",
            "there is no column 'group'",
        ),
        ("amazon-2023", "Toys.jsonl", "not json\n", "'user' is empty in row 1"),
        ("gorse", "feedback.csv", "a,b\n", "there is no feedback"),
    ],
)
def test_a_file_of_another_layout_is_one_readable_line(name, file, content, message, tmp_path):
    (tmp_path / file).write_text(content)
    with pytest.raises(DataSetError, match=message) as error:
        preset_tables(name, [str(tmp_path)])
    assert "\n" not in error.value.message


def test_items_of_another_layout_are_one_readable_line(tmp_path):
    shutil.copytree(FIXTURES / "retailrocket", tmp_path / "rr")
    (tmp_path / "rr" / "item_properties_part1.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataSetError, match=r"item_properties_part1.csv .* no column 'property'"):
        preset_tables("retailrocket", [str(tmp_path / "rr")])


def test_a_truncated_archive_is_one_readable_line(tmp_path):
    whole = gzip.compress(b"1,2,3,pv,1511544070\n" * 10_000)
    (tmp_path / "UserBehavior.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataSetError, match=r"UserBehavior.csv.gz ends in the middle"):
        preset_tables("taobao", [str(tmp_path)])


def test_campaigns_of_the_open_bandit_dataset_are_not_mixed(tmp_path):
    shutil.copytree(FIXTURES / "open-bandit", tmp_path / "obd")
    shutil.copy(tmp_path / "obd/bts/men/men.csv", tmp_path / "obd/bts/women.csv")
    with pytest.raises(DataSetError, match=r"men.csv and women.csv .* different items"):
        preset_tables("obd", [str(tmp_path / "obd")])
