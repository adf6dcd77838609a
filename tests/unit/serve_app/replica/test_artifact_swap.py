"""A replica loads the artifact that the log says, and serves on with the one before where it cannot."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.fakes import SALT

from bandits.errors import ArtifactError
from policies.artifacts.source_artifact import Artifact, TrainedSource, write
from policies.sources.base import SourceRequest
from policies.sources.remote import HttpSource
from policies.spec import ArtifactSource, PolicySpec, RemoteSource
from serve_app.replica import artifact_swap
from serve_app.replica.artifact_swap import ArtifactSwap

ITEMS = ("tea", "rum", "gin")


def train(root: Path, *items: str, source: str = "popular") -> str:
    """An artifact that recommends these, the last one first; its version."""
    popular = TrainedSource("popular", {"counts": np.arange(1, 1 + len(items), dtype=np.float32)})
    return write(Artifact(tuple({"id": item} for item in items), items, {source: popular}), root)


@pytest.fixture
def versions(tmp_path) -> list[str]:
    """Two versions, the second current."""
    return [train(tmp_path, *ITEMS[:2]), train(tmp_path, *ITEMS)]


@pytest.fixture
def swap(tmp_path, versions, monkeypatch) -> ArtifactSwap:
    """What is current serves; each attempt is made at once."""
    monkeypatch.setattr(artifact_swap, "RETRY_S", 0.0)
    return ArtifactSwap(spec_of(tmp_path), SALT)


def spec_of(root: Path) -> PolicySpec:
    return PolicySpec("home", sources=[ArtifactSource("popular")], artifact=str(root))


def best(swap: ArtifactSwap) -> str:
    return swap.loaded.proposing[0].propose(SourceRequest(), 1).ids[0]


def test_the_log_decides_and_not_what_is_current_in_the_folder(swap, versions):
    assert (swap.loaded.artifact, best(swap)) == (versions[1], "gin")
    assert swap.follow(None) is swap.loaded, "the log of an earlier build says nothing"
    assert swap.follow(versions[0]).artifact == versions[0]
    assert (best(swap), swap.is_behind) == ("rum", False)
    assert swap.follow(versions[1]).artifact == versions[1]


@pytest.mark.parametrize("of_a_version", [False, True])
def test_versions_are_found_whether_the_spec_names_their_folder_or_one_of_them(
    tmp_path, versions, of_a_version
):
    named = tmp_path / versions[1] if of_a_version else tmp_path
    swap = ArtifactSwap(spec_of(named), SALT)
    assert swap.follow(versions[0]).artifact == versions[0]


@pytest.mark.parametrize("damage", ["gone", "damaged", "lacks the source", "no version"])
def test_one_that_cannot_be_loaded_is_counted_and_said_and_tried_again(
    tmp_path, swap, versions, damage
):
    wanted, folder = versions[0], tmp_path / versions[0]
    if damage == "lacks the source":
        wanted = train(tmp_path, "tea", source="other")
    elif damage == "no version":
        wanted = "../elsewhere"
    elif damage == "damaged":
        (folder / "items.json").write_text("[]")
    else:
        folder.rename(tmp_path / "aside")

    before = swap.loaded
    for attempt in (1, 2):
        assert swap.follow(wanted) is before
        assert (swap.failures, swap.is_behind) == (attempt, True)
    told = swap.report()
    assert (told.serves, told.wanted) == (versions[1], wanted)
    assert told.reason == swap.trouble.reason != ""

    if damage == "gone":
        (tmp_path / "aside").rename(folder)
        assert swap.follow(wanted).artifact == wanted
        assert (swap.trouble, swap.is_behind, swap.report().wanted) == (None, False, None)


def test_between_two_attempts_there_is_time(tmp_path, swap, versions, monkeypatch):
    monkeypatch.setattr(artifact_swap, "RETRY_S", 60.0)
    shutil.rmtree(tmp_path / versions[0])
    for _ in range(3):
        swap.follow(versions[0])
    assert swap.failures == 1


def test_what_is_asked_for_is_loaded_beside_and_swapped_in_without_another_look(
    tmp_path, swap, versions
):
    swap.prepare(versions[0])
    assert (swap.loaded.artifact, swap.report().prepared) == (versions[1], versions[0])
    shutil.rmtree(tmp_path / versions[0])
    assert not swap.has_work(versions[0])
    assert swap.follow(versions[0]).artifact == versions[0]

    swap.prepare("")
    assert not swap.has_work("")
    assert swap.report().prepared is None


def test_nothing_is_kept_of_what_nobody_asks_for_any_more(swap, versions):
    swap.prepare(versions[0])
    assert swap.has_work("")
    swap.prepare("")
    assert swap.report().prepared is None


def test_a_remote_source_keeps_its_connections_over_an_artifact(tmp_path, versions):
    remote = RemoteSource("far", "http://127.0.0.1:1/")
    swap = ArtifactSwap(
        PolicySpec("home", sources=[remote, ArtifactSource("popular")], artifact=str(tmp_path)),
        SALT,
    )
    first = swap.loaded.proposing[0]
    second = swap.follow(versions[0]).proposing[0]
    assert isinstance(first, HttpSource)
    assert first._client is second._client
    assert (first._items, second._items) == (ITEMS, ITEMS[:2])


def test_where_not_even_the_current_one_can_be_loaded_the_replica_does_not_start(tmp_path):
    with pytest.raises(ArtifactError):
        ArtifactSwap(spec_of(tmp_path / "nothing"), SALT)
