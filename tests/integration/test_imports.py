"""Imports from an object store, and one that is killed."""

import subprocess
import sys
import time
from pathlib import Path

import pyarrow.fs
import pytest
from support.object_stores import BUCKET, object_store, store_uri

from bandits.errors import DataSetError
from policies.data.data_set import DataSet
from simulator.imports import import_data

CSV = "user,item,time\n" + "".join(f"u{i % 7},i{i},{1_700_000_000 + i}\n" for i in range(100))


def test_files_in_an_object_store_are_read_and_no_error_shows_the_credentials(tmp_path: Path):
    with object_store() as port:
        system, _ = pyarrow.fs.FileSystem.from_uri(store_uri(port))
        for name in ("a.csv", "b.csv"):
            with system.open_output_stream(f"{BUCKET}/tables/{name}") as file:
                file.write(CSV.replace("u", name[0]).replace(f"{name[0]}ser", "user").encode())
        data_set = import_data(tmp_path / "data", store_uri(port, "tables/*.csv"))
        assert data_set.manifest.counts.users == 14
        assert "secret" not in (tmp_path / "data" / "manifest.json").read_text()

        for name, said in (("tables/c.csv", "c.csv"), ("tables/*.tsv", "no file of such a name")):
            with pytest.raises(DataSetError, match=said) as caught:
                import_data(tmp_path / "other", store_uri(port, name))
            assert "secret" not in caught.value.message

        # A data set is read where it lies, too.
        for path in (tmp_path / "data").rglob("*"):
            if path.is_file():
                below = path.relative_to(tmp_path / "data")
                with system.open_output_stream(f"{BUCKET}/set/{below}") as file:
                    file.write(path.read_bytes())
        remote = DataSet.open(store_uri(port, "set"))
        remote.verify()
        assert remote.coded().user.tolist() == data_set.coded().user.tolist()


def test_a_killed_import_leaves_the_data_set_that_was_there(tmp_path: Path):
    """SIGKILL while events are read, after which the next import does its work."""
    (tmp_path / "small.csv").write_text(CSV)
    old = import_data(tmp_path / "data", str(tmp_path / "small.csv"))
    with (tmp_path / "large.csv").open("w") as file:
        file.write("user,item,time\n")
        for i in range(1_000_000):
            file.write(f"u{i % 70_000},i{i % 999},{1_700_000_000 + i}\n")

    command = [
        sys.executable,
        "-c",
        "from serve_app.cli.main import main; main()",
        *("data", "import", tmp_path / "data", "--events", tmp_path / "large.csv"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".data.*")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()

    again = DataSet.open(tmp_path / "data")
    again.verify()
    assert again.digest == old.digest
    new = import_data(tmp_path / "data", str(tmp_path / "large.csv"))
    assert new.manifest.counts.events == 1_000_000
