"""Artifacts by path, by version and by URI."""

import numpy as np
import pytest

from bandits.errors import ArtifactError
from policies.artifacts import fetch as stored_artifact
from policies.artifacts.fetch import load_artifact, load_version, pinned
from policies.artifacts.source_artifact import Artifact, TrainedSource, write


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_artifact, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def versions(tmp_path) -> list[str]:
    """Two versions below ``tmp_path``/shop, the second in use."""
    sources = [
        {"popular": TrainedSource("popular", {"counts": np.array([n], np.float32)})}
        for n in (1.0, 2.0)
    ]
    return [write(Artifact(({"id": "a"},), ("a",), each), tmp_path / "shop") for each in sources]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_of_a_root_the_version_in_use_and_of_a_version_that_one(tmp_path, cache, versions, scheme):
    root = f"{scheme}{tmp_path / 'shop'}"
    assert pinned(root) == pinned(f"{root}/{versions[1]}") == f"{root}/{versions[1]}"
    assert load_artifact(root).version == versions[1]
    assert load_artifact(f"{root}/{versions[0]}").version == versions[0]


def test_what_was_fetched_once_needs_no_second_look_and_is_checked(tmp_path, cache, versions):
    uri = f"file://{tmp_path / 'shop'}/{versions[0]}"
    load_artifact(uri)
    (tmp_path / "shop").rename(tmp_path / "gone")
    (cache / versions[0] / "manifest.json").write_text("{}")
    with pytest.raises(ArtifactError):
        load_artifact(f"{cache / versions[0]}")
    assert [each.name for each in cache.iterdir()] == [versions[0]]


@pytest.mark.parametrize("where", ["file:///nowhere/at/all", "nonsense://x/y", "/nowhere/at/all"])
def test_what_is_not_there_is_one_readable_error(cache, where):
    with pytest.raises(ArtifactError):
        load_artifact(where)
    with pytest.raises(ArtifactError):
        pinned(where)


def test_whoever_needs_a_part_reads_no_other(tmp_path, versions):
    """A learner no arrays, a replica no catalogue: of a million items either takes seconds."""
    whole = load_artifact(str(tmp_path / "shop"))
    told = load_artifact(str(tmp_path / "shop"), needs="log")
    assert (told.version, told.catalogue, told.sources) == (whole.version, whole.catalogue, {})

    (tmp_path / "shop" / versions[0] / "catalogue.json").unlink()
    served = load_version(str(tmp_path / "shop"), versions[0], needs="replica")
    assert (served.items, served.catalogue, list(served.sources)) == (("a",), (), ["popular"])
    with pytest.raises(ArtifactError):
        load_version(str(tmp_path / "shop"), versions[0])
