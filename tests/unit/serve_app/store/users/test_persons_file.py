"""Copies of who users are: what an earlier build has written is read as it was."""

from io import BytesIO

import pyarrow.parquet as pq
import pytest

from serve_app.store.users.persons_file import NEWEST, PersonRow, read_persons, write_persons

ROWS = [
    PersonRow(b"k" * 16, b"p" * 16, 1000, [b"e" * 16], [b"i" * 16], None, [b"f" * 16]),
    PersonRow(b"l" * 16, b"q" * 16, 2000, [], [], None, None),
    PersonRow(b"i" * 16, b"e" * 16, None, None, None, b"k" * 16, None),
]


@pytest.fixture
def copy() -> bytes:
    file = BytesIO()
    assert write_persons(file, [ROWS[:1], [], ROWS[1:]], space="shop", salt="s", made_ms=3000) == 3
    return file.getvalue()


def test_a_copy_has_what_was_written(copy):
    about, rows = read_persons(BytesIO(copy), "copy")
    assert (about.space, about.salt, about.rows, about.made_ms) == ("shop", "s", 3, 3000)
    assert rows == ROWS


def test_a_copy_of_a_build_that_noted_no_filed_pseudonyms_is_read(copy):
    parquet = pq.ParquetFile(BytesIO(copy))
    older = BytesIO()
    table = parquet.read().drop_columns([NEWEST])
    table = table.replace_schema_metadata(parquet.metadata.metadata)
    pq.write_table(table, older)
    about, rows = read_persons(BytesIO(older.getvalue()), "copy")
    assert about.rows == 3
    assert rows == [row._replace(filed=None) for row in ROWS]
