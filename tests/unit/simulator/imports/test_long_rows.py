"""First rows that are longer than what is looked at first to find out how a file is read."""

import json

import pyarrow as pa
import pytest

from simulator.imports import import_data
from simulator.imports.files.chunks import SAMPLE

LONG = ("word, " * 9 + "\n") * (SAMPLE // 54)
ROW = {"note": LONG, "user": "ann", "item": "tea", "rating": 1}
NEXT = {"note": "", "user": "bob", "item": "mug", "rating": 2}
FILES = {
    "quoted.csv": f'user,item,note,rating\nann,tea,"{LONG}",1\nbob,mug,,2\n',
    "lines.jsonl": f"{json.dumps(ROW)}\n{json.dumps(NEXT)}\n",
    "header.csv": f"user,item,rating,{'x' * SAMPLE}\nann,tea,1,\nbob,mug,2,\n",
}


@pytest.mark.parametrize("name", FILES)
def test_a_first_row_may_be_long(tmp_path, name):
    """In quotation marks over many lines, in a JSON object, and in the header."""
    (tmp_path / name).write_text(FILES[name])
    data_set = import_data(tmp_path / "out", str(tmp_path / name))
    rows = pa.Table.from_batches(data_set.events()).to_pylist()
    assert sorted((row["user"], row["item"], row["value"]) for row in rows) == [
        ("ann", "tea", 1.0),
        ("bob", "mug", 2.0),
    ]


def test_each_text_of_items_may_be_long(tmp_path):
    (tmp_path / "events.csv").write_text("user,item\nann,tea\n")
    told = "".join(f'{each},"{LONG[:200_000]}"\n' for each in ("tea", "mug"))
    (tmp_path / "items.csv").write_text(f"item,about\n{told}")
    data_set = import_data(
        tmp_path / "out", str(tmp_path / "events.csv"), items=str(tmp_path / "items.csv")
    )
    assert data_set.manifest.item_columns == {"about": "text"}
    (note,) = [each for each in data_set.manifest.notes if "100,000 bytes" in each]
    assert "items: 2 have more than" in note
    assert "'tea' (row 1 of " in note
