#!/usr/bin/env bash
# pyarrow 26.0.1: ParquetWriter(..., store_schema=False) also drops the metadata of the schema it is given.
#
# store_schema is documented as whether the Arrow schema is stored in the file (under the key "ARROW:schema"), which is
# needed to restore Arrow's own types. Seen: without it, the key-value metadata that the caller has put on the schema is
# not written either, and nothing says so: a format that keeps its version or its table's name there loses it.
# What to do instead: add_key_value_metadata() before the writer is closed, which is kept either way.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check pyarrow==26.0.1

cd "$work" && "$work/env/bin/python" - <<'PY'
import pyarrow as pa
import pyarrow.parquet as pq

schema = pa.schema([("x", pa.int64())], metadata={b"table": b"events, version 2"})
batch = pa.record_batch([pa.array([1, 2])], schema=schema)


def keys(added: bool, **options: bool) -> set[bytes]:
    with pq.ParquetWriter("file.parquet", schema, **options) as writer:
        writer.write_batch(batch)
        if added:
            writer.add_key_value_metadata({"table": "events, version 2"})
    return set(pq.read_metadata("file.parquet").metadata or {})


seen = {
    "store_schema=True": keys(False),
    "store_schema=False": keys(False, store_schema=False),
    "store_schema=False, added before the end": keys(True, store_schema=False),
}
for how, found in seen.items():
    print(f"{how}: {sorted(found)}")
assert seen["store_schema=True"] == {b"table", b"ARROW:schema"}
assert seen["store_schema=False"] == set()
assert seen["store_schema=False, added before the end"] == {b"table"}
PY
echo "as described"
