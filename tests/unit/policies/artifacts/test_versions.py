"""Versions below a root, in a folder or at a URI: stored without a word to who begins anew."""

from dataclasses import replace

import pytest
from support.small_artifact import make_artifact

from bandits.errors import ArtifactError
from policies.artifacts import fetch
from policies.artifacts.fetch import load_version
from policies.artifacts.source_artifact import CURRENT, write
from policies.artifacts.versions import root_of, store_version, version_at


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_stored_version_is_read_by_its_name_and_is_not_current(tmp_path, monkeypatch, scheme):
    monkeypatch.setattr(fetch, "CACHE", tmp_path / "cache")
    root = f"{scheme}{tmp_path / 'root'}"
    version = store_version(make_artifact(), root)
    assert not (tmp_path / "root" / CURRENT).exists()
    assert load_version(root, version).version == version
    assert store_version(make_artifact(), root) == version
    with pytest.raises(ArtifactError):
        load_version(root, "0123456789abcdef")

    # A spec may name one version's own folder.
    assert root_of(version_at(root, version)).rstrip("/") == root
    assert root_of(root) == root


def test_what_was_current_stays_so(tmp_path):
    current = write(make_artifact(), tmp_path)
    assert store_version(replace(make_artifact(), seed=5), str(tmp_path)) != current
    assert (tmp_path / CURRENT).read_text().strip() == current
