from pathlib import Path

import pytest
from pydantic import ValidationError

from bandits.errors import StartupError
from serve_app.embedded import alone
from serve_app.settings import Settings


def test_a_second_service_cannot_use_the_same_folder(tmp_path):
    with alone(tmp_path), pytest.raises(StartupError, match="in use"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


def test_a_made_salt_is_kept_and_readable_by_its_owner_alone(tmp_path):
    first = Settings(data_dir=tmp_path).secret()
    assert len(first) == 64
    assert Settings(data_dir=tmp_path).secret() == first
    assert (tmp_path / "salt").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["salt"]


def test_a_short_or_empty_salt_is_refused(tmp_path):
    (tmp_path / "salt").write_bytes(b"")
    with pytest.raises(StartupError, match="0 bytes"):
        Settings(data_dir=tmp_path).secret()
    with pytest.raises(StartupError, match="5 bytes"):
        Settings(data_dir=tmp_path, salt="short").secret()


@pytest.mark.parametrize(
    ("given", "root"),
    [
        (None, "/data/archive"),
        ("", ""),
        ("none", ""),
        ("/somewhere/else", "/somewhere/else"),
        ("here", str(Path("here").resolve())),
        ("s3://bucket/prefix", "s3://bucket/prefix"),
    ],
)
def test_where_the_archive_is(given, root):
    """A relative path is resolved, because the archiver runs in another folder."""
    settings = Settings(data_dir=Path("/data"), archive=given)
    assert settings.archive_root() == root
    assert settings.model_copy(update={"archive": root}).archive_root() == root


def test_retries_need_the_log_for_longer_than_they_may_come():
    with pytest.raises(ValidationError, match="archive_retain_s"):
        Settings(archive_retain_s=600)
