"""A data set gives back what was written, in its order, and says which file is wrong."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bandits.errors import DataSetError
from policies.data.coded import event_weights
from policies.data.data_set import EVENT_SCHEMA, DataSet
from policies.data.manifest import ITEMS, MANIFEST, WeightOptions
from policies.data.writer import new_data_set, write_data_set

DAY = 86_400_000

EVENTS = pa.table(
    {
        "user": ["b", "a", "b", "a", "b"],
        "item": ["y", "x", "x", "z", "z"],
        "type": ["view", "buy", "view", None, "view"],
        "time": [3 * DAY, 2 * DAY, DAY, 2 * DAY, None],
        "value": [5.0, None, 3.0, 1.0, None],
    }
)
ITEMS_GIVEN = [
    {"id": "x", "features": {"genre": "sci-fi", "tags": ["a", "b"], "price": 3}},
    {"id": "unseen", "features": {"genre": "noir", "new": True}},
]


@pytest.fixture
def data_set(tmp_path: Path) -> DataSet:
    return write_data_set(tmp_path / "shop", EVENTS, items=ITEMS_GIVEN)


def test_a_users_events_stand_together_in_time_order_and_ties_keep_theirs(data_set: DataSet):
    table = pa.Table.from_batches(data_set.events())
    assert table.schema.equals(EVENT_SCHEMA)
    rows = list(zip(table["user"].to_pylist(), table["item"].to_pylist(), strict=True))
    assert rows == [("a", "x"), ("a", "z"), ("b", "z"), ("b", "x"), ("b", "y")]
    assert table["type"].to_pylist() == ["buy", "event", "view", "view", "view"]
    only = pa.Table.from_batches(data_set.events(["item"]))
    assert only.column_names == ["item"]


def test_every_item_of_an_event_is_listed_and_features_are_as_a_catalogue_takes_them(
    data_set: DataSet,
):
    assert data_set.items() == [
        {"id": "x", "features": {"genre": "sci-fi", "price": 3.0, "tags": ["a", "b"]}},
        {"id": "unseen", "features": {"genre": "noir", "new": True}},
        {"id": "y", "features": {}},
        {"id": "z", "features": {}},
    ]
    counts = data_set.manifest.counts
    assert (counts.events, counts.users, counts.items, counts.listed_items) == (5, 2, 3, 4)
    assert counts.types == {"buy": 1, "event": 1, "view": 3}
    assert (counts.untimed, counts.first_ms, counts.last_ms) == (1, DAY, 3 * DAY)
    assert data_set.users() is None


def test_coded_events_have_sorted_items_and_one_run_a_user(data_set: DataSet):
    coded = data_set.coded()
    assert (coded.user_ids, coded.item_ids) == (("a", "b"), ("x", "y", "z"))
    assert coded.user.tolist() == [0, 0, 1, 1, 1]
    assert [coded.item_ids[i] for i in coded.item] == ["x", "z", "z", "x", "y"]
    assert coded.time.tolist() == [2 * DAY, 2 * DAY, -1, DAY, 3 * DAY]
    assert np.isnan(coded.value).tolist() == [True, False, True, False, False]
    assert coded.starts.tolist() == [0, 2, 5]
    assert coded.weight.tolist() == [1.0] * 5


def test_events_before_a_time_are_a_data_set_without_the_others(data_set: DataSet):
    early = data_set.coded(before_ms=2 * DAY)
    assert (early.user_ids, early.item_ids, early.time.tolist()) == (("b",), ("x",), [DAY])
    with pytest.raises(DataSetError, match="no event before 5 ms"):
        data_set.coded(before_ms=5)


def test_a_weight_is_the_types_times_the_ratings_times_the_ages(tmp_path: Path):
    options = WeightOptions({"view": 2.0}, half_life_s=86_400, rating_scale=(1, 5))
    coded = write_data_set(tmp_path / "d", EVENTS, weights=options).coded()
    # a: buy unrated a day ago; event rated 1 a day ago. b: untimed; rated 3, 2 days ago; rated 5.
    expected = [0.5, 0.1 * 0.5, 2.0, 2 * 0.4 * 0.25, 2 * 1.5]
    assert coded.weight.tolist() == pytest.approx(expected)


def test_ratings_weigh_what_they_did_when_only_scales_of_1_to_5_were_known():
    ratings = np.linspace(1, 5, 41, dtype=np.float32)
    ours = event_weights(
        ("r",),
        np.zeros(41, np.int16),
        np.full(41, -1),
        ratings,
        WeightOptions(rating_scale=(1, 5)),
    )
    theirs = np.interp(ratings, np.arange(6), (0.0, 0.1, 0.2, 0.4, 1.0, 1.5)).astype(np.float32)
    assert np.array_equal(ours, theirs)


def test_the_same_tables_make_the_same_bytes(tmp_path: Path):
    one, two = (write_data_set(tmp_path / n, EVENTS, name="d") for n in ("one", "two"))
    assert one.digest == two.digest


def test_a_folder_without_a_data_set_says_what_makes_one(tmp_path: Path):
    with pytest.raises(DataSetError, match=r"banditloop data import .* --events FILE makes one"):
        DataSet.open(tmp_path)


def test_what_is_damaged_is_named(data_set: DataSet):
    root = Path(data_set.root)
    whole = (root / ITEMS).read_bytes()

    (root / ITEMS).write_bytes(whole[:-1])
    with pytest.raises(DataSetError, match=r"items\.parquet has .* bytes, not the"):
        DataSet.open(root)

    (root / ITEMS).write_bytes(whole[:-9] + bytes(9))
    with pytest.raises(DataSetError, match=r"items\.parquet is damaged"):
        DataSet.open(root).verify()
    with pytest.raises(DataSetError, match=r"items\.parquet cannot be read"):
        DataSet.open(root).items()

    (root / ITEMS).unlink()
    with pytest.raises(DataSetError, match=r"items\.parquet is missing"):
        DataSet.open(root)

    (root / MANIFEST).write_text('{"format": 99}')
    with pytest.raises(DataSetError, match="has format 99"):
        DataSet.open(root)


def test_a_folder_of_something_else_is_not_written_over(tmp_path: Path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(DataSetError, match="not a data set"):
        write_data_set(tmp_path, EVENTS)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_failed_write_leaves_the_data_set_that_was_there(data_set: DataSet):
    root = Path(data_set.root)

    def fail() -> None:
        with new_data_set(root) as scratch:
            (scratch / ITEMS).write_bytes(b"half")
            raise DataSetError("x cannot be")

    with pytest.raises(DataSetError, match="x cannot be"):
        fail()
    DataSet.open(root).verify()
    assert [path.name for path in root.parent.iterdir()] == [root.name]


def test_tables_are_refused_by_what_is_wrong_with_them(tmp_path: Path):
    without_user = pa.table({"user": ["a", None], "item": ["x", "y"]})
    for events, items, said in (
        (pa.table({"user": ["a"]}), None, "no column item"),
        (EVENTS.slice(0, 0), None, "no rows"),
        (without_user, None, "a row without user"),
        (EVENTS, pa.table({"id": ["x", "x"]}), "occurs twice"),
        (EVENTS, pa.table({"id": ["x"], "odd": [{"a": 1}]}), "column 'odd' is struct"),
    ):
        with pytest.raises(DataSetError, match=said):
            write_data_set(tmp_path / "d", events, items=items)
    assert not (tmp_path / "d").exists()


def test_users_and_columns_of_every_kind_are_kept(tmp_path: Path):
    items = pa.table(
        {
            "id": ["x", "y", "z"],
            "blurb": ["A long text, long enough that nobody would take it for a category." * 2] * 3,
            "taste": [[0.5, 1.0], None, [0.0, 2.0]],
            "available_from": pa.array([0, None, 5], pa.timestamp("ms", "UTC")),
        }
    )
    users = pa.table({"id": ["a"], "age": [33]})
    data_set = write_data_set(tmp_path / "d", EVENTS, items=items, users=users)

    kinds = {"blurb": "text", "taste": "vector", "available_from": "time"}
    assert data_set.manifest.item_columns == kinds
    assert data_set.items()[:2] == [
        {
            "id": "x",
            "features": {},
            "metadata": {"blurb": items["blurb"][0].as_py()},
            "vectors": {"taste": [0.5, 1.0]},
            "available_from": "1970-01-01T00:00:00.000Z",
        },
        {"id": "y", "features": {}, "metadata": {"blurb": items["blurb"][1].as_py()}},
    ]
    assert data_set.items_table()["taste"].to_pylist() == [[0.5, 1.0], None, [0.0, 2.0]]
    assert data_set.users().to_pylist() == [{"id": "a", "age": 33}]
    assert pq.read_schema(Path(data_set.root) / "events/part-00000.parquet").equals(EVENT_SCHEMA)
