"""Archives a stream and reads the files again, in the build whose code this process imports.

Started by archive_size.py, as a script: it prints one line of JSON.
"""

import argparse
import json
import os
import tempfile
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy is imported

import pyarrow as pa
import redis

from policies.archive.archive import ArchiveReader
from serve_app.store.keys import Keys
from serve_app.workers.archiver import Archiver


def seconds(run) -> float:  # noqa: ANN001 - a callable
    """Processor time of a call."""
    began = time.process_time()
    run()
    return time.process_time() - began


def main() -> None:
    """Forget what was archived, archive all, read all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("policy")
    given = parser.parse_args()

    # Imports pandas, before anything is measured: a served archiver finds none (lean_ray.py).
    pa.array([0])

    client, keys = redis.Redis(port=given.port), Keys(given.policy)
    for key in client.scan_iter():
        if key != keys.log.encode():
            client.delete(key)

    with tempfile.TemporaryDirectory() as folder:
        archiver = Archiver(client, given.policy, folder, max_age_s=0.0)

        def archive() -> None:
            while archiver.step():
                pass

        reader = ArchiveReader(folder, given.policy)
        found = {"archive_s": seconds(archive)}
        ranges = list(reader.ranges())
        found |= {
            "bytes": sum(each.size for each in ranges),
            "record_bytes": sum(each.record_bytes for each in ranges),
            "raw_s": seconds(lambda: sum(1 for _ in reader.raw())),
            "entries_s": seconds(lambda: sum(1 for _ in reader.entries())),
        }
        same = 0
        for (entry_id, data), (read_id, fields) in zip(
            reader.raw(), entries_of(client, keys.log), strict=True
        ):
            same += (entry_id, data) == (read_id, fields)
    print(json.dumps({**found, "same": same}))


def entries_of(client: redis.Redis, log: str):  # noqa: ANN201 - an iterator of pairs
    """The id and the record bytes of the stream's entries."""
    start = "-"
    while batch := client.xrange(log, start, count=1000):
        for entry_id, fields in batch:
            yield entry_id.decode(), fields[b"r"]
        start = "(" + batch[-1][0].decode()


if __name__ == "__main__":
    main()
