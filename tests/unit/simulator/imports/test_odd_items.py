"""Tables of items with cells that are not what their column is: counted, named, never in silence."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bandits.errors import DataSetError
from policies.data.data_set import DataSet
from simulator.imports import import_data
from simulator.imports.raw import TableFormat

T0 = 1_700_000_000
EVENTS = f"user,item,time\nann,a,{T0}\nbob,b,{T0}\n"


def imported(folder: Path, items: str | pa.Table, **more) -> DataSet:
    events = folder / "events.csv"
    events.write_text(EVENTS)
    file = folder / ("items.csv" if isinstance(items, str) else "items.parquet")
    if isinstance(items, str):
        file.write_text(items)
    else:
        pq.write_table(items, file)
    return import_data(folder / "out", str(events), items=str(file), **more)


GOOD = "".join(f"i{n},2024-01-{n:02}\n" for n in range(1, 20))


@pytest.mark.parametrize(
    ("column", "cells", "said"),
    [
        ("available_until", GOOD + "x,soon\n", "row 20 has 'soon' in column 'available_until'"),
        (
            "available_from",
            GOOD + "x,2024-02-30\n",
            "row 20 has '2024-02-30' .* no time .*not a beginning",
        ),
        (
            "available_until",
            GOOD + "x,31/12/2023\ny,never\n",
            "row 20 has '31/12/2023' .*nor is that of 1 more",
        ),
        ("available_until", f"a,{T0}\nb,{T0}\n" * 99 + f"x,{T0}000\n", "row 199 has '17.*000'"),
        ("available_from", f"a,{T0}000\nb,{T0}000\n" * 99 + f"x,{T0}\n", "row 199 has '17"),
        ("available_until", f"a,{T0}\nb,{T0}\n" * 99 + "x,0\n", "row 199 has '0' .*not an end"),
    ],
)
def test_a_time_of_items_that_cannot_be_read_is_an_error(tmp_path, column, cells, said):
    """Who would be offered for ever, or from the begin on, is named: file, row and column."""
    with pytest.raises(DataSetError, match=f"items.csv: {said}") as caught:
        imported(tmp_path, f"item_id,{column}\n{cells}")
    assert "\n" not in caught.value.message
    assert not (tmp_path / "out").exists()

    left = imported(tmp_path, f"item_id,{column}\n{cells}", item_columns={column: None})
    assert all(column not in item for item in left.items())


def test_cells_that_say_there_is_no_time_are_none(tmp_path):
    """As databases and programs write them; a column of a type that holds no times is an error."""
    cells = "".join(
        f"i{at},{cell}\n" for at, cell in enumerate(("0000-00-00", "NaT", "null", "n/a", ""))
    )
    items = imported(tmp_path, f"item_id,available_until\n{GOOD}{cells}").items()
    assert {item["id"] for item in items if "available_until" not in item} == {"i0", "a", "b"}

    odd = pa.table({"item_id": ["a"], "available_until": [[1, 2]]})
    with pytest.raises(DataSetError, match=r"'available_until' is list<.*>, and no times"):
        imported(tmp_path, odd)


def test_vectors_that_no_item_may_have_are_counted_and_the_others_are_vectors(tmp_path):
    """As text or in Parquet: one NaN makes no category of a column, and is told of."""
    text = 'item_id,look\na,"[1, 2, 3]"\nb,"[1, NaN, 3]"\nc,"[4, 5, 6]"\nd,none\ne,"[1, 2"\n'
    data_set = imported(tmp_path, text)
    vectors = {item["id"]: item.get("vectors") for item in data_set.items()}
    assert vectors["c"] == {"look": [4.0, 5.0, 6.0]}
    assert [vectors[each] for each in "bde"] == [None] * 3
    assert data_set.manifest.left_out == {
        "items: values of look that are not lists as the others are": 2,
        "items: values of look with a number that is missing, NaN or infinite": 1,
    }
    notes = "; ".join(data_set.manifest.notes)
    assert "that of 'b' (row 2 of " in notes
    assert "that of 'd' (row 4 of " in notes

    odd = [[1.0, 2.0], [float("nan"), 1.0], [1.0, float("inf")], [], [1e39, 1.0], None, [1.0, None]]
    ids = ["a", *(f"i{n}" for n in range(1, 7))]
    data_set = imported(tmp_path, pa.table({"item_id": ids, "look": odd}))
    assert data_set.manifest.left_out == {
        "items: values of look with a number that is missing, NaN or infinite": 4,
        "items: values of look that are empty vectors": 1,
    }
    assert [item["id"] for item in data_set.items() if "vectors" in item] == ["a"]


def test_a_text_among_vectors_is_counted(tmp_path):
    text = 'item_id,look\na,"[1, 2]"\nb,"[3, 4]"\nc,"[""x"", 2]"\n'
    manifest = imported(tmp_path, text).manifest
    assert manifest.item_columns == {"look": "vector"}
    assert manifest.left_out == {"items: values of look that are not lists as the others are": 1}


def test_one_word_in_a_column_of_numbers_is_told_of(tmp_path):
    """The price is a category then; numbers that no feature may be are counted."""
    cells = "".join(f"i{n},{n}\n" for n in range(30))
    data_set = imported(tmp_path, f"item_id,price\n{cells}i99,free\n")
    assert data_set.manifest.item_columns == {"price": "category"}
    assert any(
        "column 'price' is text, since 1 of its 31 values is no number, such as 'free' of 'i99'"
        " (row 31 of " in note
        for note in data_set.manifest.notes
    )

    data_set = imported(tmp_path, f"item_id,price\n{cells}x,inf\ny,1e30\n")
    assert data_set.manifest.left_out == {
        "items: values of price that are NaN or infinite": 1,
        "items: values of price beyond 1e+19": 1,
    }
    assert any("that of 'y' (row 32 of " in note for note in data_set.manifest.notes)


def test_lists_of_texts_may_have_numbers_and_what_is_no_json_is_told_of(tmp_path):
    text = "item_id,tags,words\na,\"['x', 'y']\",\"['x']\"\n"
    found = imported(tmp_path, text.replace("'x', 'y'", '""x"", 7'))
    assert found.manifest.item_columns == {"tags": "list", "words": "category"}
    assert found.items()[0]["features"] == {"tags": ["x", "7"], "words": "['x']"}
    assert any(
        "'words' is text: lists are written as JSON" in note for note in found.manifest.notes
    )


def test_a_table_of_items_may_be_their_ids_alone(tmp_path):
    """Without a separator, as a list of what is for sale; the separator of events is taken last."""
    assert [item["id"] for item in imported(tmp_path, "item_id\na\nb\nc\n").items()] == [
        "a",
        "b",
        "c",
    ]
    with pytest.raises(DataSetError, match="ids alone, write item_id above them"):
        imported(tmp_path, "a\nb\nc\n")

    own = tmp_path / "own.csv"
    own.write_text(EVENTS.replace(",", "^"))
    items = tmp_path / "caret.csv"
    items.write_text("item_id^price\na^3\n")
    data_set = import_data(
        tmp_path / "out", str(own), items=str(items), form=TableFormat(separator="^")
    )
    assert {item["id"]: item["features"] for item in data_set.items()}["a"] == {"price": 3.0}


def test_items_that_only_events_name_are_counted(tmp_path):
    """However few they are: nothing is known of them."""
    note = "the table of items lacks 1 of the 2 items that events name, such as 'b'"
    notes = imported(tmp_path, "item_id,price\na,3\nc,4\n").manifest.notes
    assert any(note in each and "written alike" not in each for each in notes)
    notes = imported(tmp_path, "item_id\na\n").manifest.notes
    assert any(note in each and "written alike" not in each for each in notes)
    assert not any("lacks" in each for each in imported(tmp_path, "item_id\na\nb\n").manifest.notes)


def test_it_can_be_said_which_columns_are_text(tmp_path):
    """One or several, whatever is in them."""
    table = "item_id,what,code,size\na,tea,7,1\nb,mug,8,2\n"
    data_set = imported(tmp_path, table, item_columns={"text": ["what", "code"]})
    assert data_set.manifest.item_columns == {"what": "text", "code": "text", "size": "number"}
    assert data_set.items()[0]["metadata"] == {"what": "tea", "code": "7"}

    data_set = imported(tmp_path, table, item_columns={"text": "what"})
    assert data_set.manifest.item_columns["what"] == "text"
    with pytest.raises(DataSetError, match="no column 'nope', which --item-columns text names"):
        imported(tmp_path, table, item_columns={"text": "nope"})
    with pytest.raises(DataSetError, match="item is one column, not"):
        imported(tmp_path, table, item_columns={"item": ["what"]})
