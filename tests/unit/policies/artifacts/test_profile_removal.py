"""Users are removed from a file of profiles; the others stay as they were."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bandits.errors import ArtifactError
from policies.artifacts import profile_file, profile_removal
from policies.artifacts.histories import Histories
from policies.artifacts.profile_file import ABOUT, write_profiles
from policies.artifacts.profile_removal import remove_profiles
from policies.pseudonyms import pseudonym

SALT = b"a salt of sixteen"
COUNT = 60


def keyed(*numbers: int) -> list[str]:
    return [pseudonym(SALT, f"u{number}") for number in numbers]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of several groups, in which each user has as many items as their number says."""
    monkeypatch.setattr(profile_file, "USERS_A_GROUP", 7)
    starts = np.concatenate([[0], np.cumsum(np.arange(COUNT) % 5)])
    histories = Histories(
        items=("a", "b", "c", "d", "e"),
        users=tuple(f"u{number}" for number in range(COUNT)),
        starts=starts,
        indices=np.concatenate([np.arange(number % 5) for number in range(COUNT)]).astype(np.int32),
        weights=np.ones(starts[-1], np.float32),
        times=np.arange(starts[-1]),
        types=np.zeros(starts[-1], np.int16),
        type_names=("view",),
    )
    write_profiles(tmp_path / "profiles.parquet", histories, salt=SALT, data="d", artifact="v")
    return tmp_path / "profiles.parquet"


def test_they_are_gone_and_nobody_else_is(path: Path) -> None:
    before = pq.read_table(path)
    about = pq.ParquetFile(path).metadata.metadata[ABOUT]
    gone = [*keyed(3, 17, 18, 59), pseudonym(SALT, "a stranger")]

    assert remove_profiles(str(path), gone, salt=SALT) == set(keyed(3, 17, 18, 59))
    kept = [user not in gone for user in before["user"].to_pylist()]
    assert pq.read_table(path).equals(before.filter(kept))
    assert pq.ParquetFile(path).metadata.metadata[ABOUT] == about
    assert all(user.encode() not in path.read_bytes() for user in gone)
    assert remove_profiles(str(path), gone, salt=SALT) == set()
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_has_none_of_them_is_left_as_it_is(path: Path, tmp_path: Path) -> None:
    before = path.stat()
    content = path.read_bytes()
    assert remove_profiles(str(path), [pseudonym(SALT, "a stranger")], salt=SALT) == set()
    assert remove_profiles(str(path), keyed(3), salt=b"another of sixteen") == set()
    assert remove_profiles(str(tmp_path / "none"), keyed(3), salt=SALT) == set()
    after = path.stat()  # (when it was last read may change)
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert path.read_bytes() == content


def test_of_a_group_all_may_go(path: Path) -> None:
    assert len(remove_profiles(str(path), keyed(*range(COUNT)), salt=SALT)) == COUNT
    assert pq.read_table(path).num_rows == 0


def test_a_file_that_was_written_meanwhile_is_not_overwritten(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = profile_removal._copy

    def copy_and_write(*arguments) -> None:
        copy(*arguments)
        path.with_name("new").write_bytes(b"new")
        path.with_name("new").replace(path)

    monkeypatch.setattr(profile_removal, "_copy", copy_and_write)
    with pytest.raises(ArtifactError, match="meanwhile"):
        remove_profiles(str(path), keyed(3), salt=SALT)
    assert path.read_bytes() == b"new"


def test_a_damaged_file_says_so(path: Path) -> None:
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ArtifactError, match="no file of profiles"):
        remove_profiles(str(path), keyed(3), salt=SALT)
