"""What there is of an archive, and what compaction makes of its files, over all partitions."""

from pathlib import Path

import msgspec
import pytest
from support.archives import cut, no_blob, plain
from support.first_layout import put_layout_1
from typer.testing import CliRunner

from bandits.errors import ArchiveError
from policies.archive import compaction
from policies.archive.archive import ArchiveReader, ArchiveWriter, archive_folders
from serve_app.admin.archives import archive_summary, compact_archive
from serve_app.cli.main import app

HOUR = 3_600_000
LOGS = [plain(24, step=HOUR // 8), plain(9, start=1_700_000_000_500, step=HOUR // 8)]


@pytest.fixture
def root(tmp_path, monkeypatch) -> str:
    """Two partitions, in ranges of three entries, the second's in the layout of older builds."""
    monkeypatch.setattr(compaction, "SETTLE_S", 0.0)
    writer = ArchiveWriter(tmp_path, "home/partition=0")
    for committed, entries in cut(LOGS[0], 3):
        writer.write(committed, entries, no_blob)
    for committed, entries in cut(LOGS[1], 3):
        put_layout_1(tmp_path, "home/partition=1", committed, entries)
    return str(tmp_path)


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["archive", *arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


def logs(root: str) -> list:
    return [list(ArchiveReader(root, folder).raw()) for folder in archive_folders(root, "home")]


def test_a_summary_covers_layouts_and_partitions(root):
    seen = []
    summary = archive_summary(root, None, lambda: seen.append(None))
    files = list(Path(root).rglob("*.parquet"))
    assert summary.ranges == len(files) == len(seen)
    assert summary.size == sum(file.stat().st_size for file in files)
    assert summary.entries == 33
    exact = [sum(len(data) for _, data in log) for log in LOGS]
    assert sum(exact) <= summary.record_bytes < exact[0] + 2 * exact[1]  # layout 1 does not say it
    assert (summary.first.id, summary.last.id) == (LOGS[0][0][0], LOGS[0][-1][0])
    shown = msgspec.json.decode(run("show", "home", "--archive", root, "--json"))
    assert shown == msgspec.to_builtins(summary)


def test_compaction_says_what_it_did(root):
    files = len(list(Path(root).rglob("*.parquet")))
    steps = []
    planned = compact_archive(root, None, dry_run=True)
    assert len(list(Path(root).rglob("*.parquet"))) == files
    done = compact_archive(root, None, progress=lambda *step: steps.append(step))
    assert planned.before.files == done.before.files == files
    assert planned.after.files == done.after.files
    assert planned.written == done.written
    assert planned.after.size is None
    assert 0 < done.after.files < done.covered.files <= files
    assert steps[-1] == ("compacting", files, files)
    assert logs(root) == LOGS

    last = compact_archive(root, None, remove=True, progress=lambda *step: steps.append(step))
    assert (last.written, last.before, last.after) == (0, done.after, done.after)
    assert (last.removed, last.covered.files) == (done.covered, 0)
    assert steps[-1] == ("comparing and removing", done.covered.files, done.covered.files)
    assert len(list(Path(root).rglob("*.parquet"))) == done.after.files
    assert logs(root) == LOGS
    assert archive_summary(root, None).ranges == done.after.files


def test_the_command_prints_files_and_bytes(root):
    text = run("compact", "--archive", root, "--dry-run")
    assert "nothing was written" in text
    assert "removed" not in text
    text = run("compact", "home", "--archive", root)
    assert "covered" in text
    assert "--remove" in text
    text = run("compact", "--archive", root, "--remove")
    assert "removed" in text
    assert "covered" not in text


def test_a_policy_that_is_not_archived_is_named(root):
    with pytest.raises(ArchiveError, match="no range of other"):
        compact_archive(root, "other")
