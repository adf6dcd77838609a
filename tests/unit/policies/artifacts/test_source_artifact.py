"""Artifacts: the same content gives the same bytes, and any damage is one readable error."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from bandits.errors import ArtifactError
from policies.artifacts import source_artifact as artifact
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import Artifact, Calibration, TrainedSource
from policies.sources import LocalSource, SourceRequest, load_sources

EARLIER = Path(__file__).parents[3] / "fixtures" / "artifact_format_1"
"""Written by commit 4c415d9, with what its sources answered."""


def small(**changes: Any) -> Artifact:
    """Three items, one source."""
    source = TrainedSource(
        "popular",
        {"counts": np.arange(3, dtype=np.float32)},
        {"x": 1.5},
        Calibration(0.5, 2.0),
        {"n": 3.0},
    )
    catalogue = (
        {"id": "a", "features": {"title": "A", "year": 1999, "genres": ["x", "y"], "new": True}},
    )
    made = Artifact(
        catalogue,
        ("a", "b", "ç"),
        {"popular": source},
        data="d",
        seed=3,
        created_with={"numpy": "2"},
    )
    return replace(made, **changes)


HISTORIES = Histories(
    items=("a", "b", "ç"),
    users=("1", "2"),
    starts=np.array([0, 2, 3]),
    indices=np.array([0, 2, 1], np.int32),
    weights=np.array([1, 0.5, 1], np.float32),
)


def test_round_trip(tmp_path: Path) -> None:
    made = small()
    version = artifact.write(made, tmp_path)
    loaded = artifact.load(tmp_path)
    assert loaded.version == version == (tmp_path / "current").read_text().strip()
    assert len(version) == 16
    assert loaded.catalogue == made.catalogue
    assert (loaded.items, loaded.histories, loaded.prior) == (made.items, None, None)
    source = loaded.sources["popular"]
    assert (source.kind, source.config, source.scale, source.metrics) == (
        "popular",
        {"x": 1.5},
        Calibration(0.5, 2.0),
        {"n": 3},
    )
    assert np.array_equal(source.array("counts", 3), [0, 1, 2])
    assert (loaded.data, loaded.seed, loaded.created_with) == ("d", 3, {"numpy": "2"})


def test_loaded_arrays_are_read_only(tmp_path: Path) -> None:
    artifact.write(small(), tmp_path)
    with pytest.raises(ValueError, match="read-only"):
        artifact.load(tmp_path).sources["popular"].arrays["counts"][0] = 1


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = (artifact.write(small(), tmp_path / name) for name in ("one", "two"))
    assert one == two
    for path in (tmp_path / "one" / one).iterdir():
        assert path.read_bytes() == (tmp_path / "two" / two / path.name).read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 4},
        {"data": "e"},
        {"catalogue": ()},
        {"items": ("b", "a", "ç")},
        {"created_with": {}},
        {"sources": {}},
        {"prior": b""},
    ],
    ids=str,
)
def test_other_content_has_another_version(tmp_path: Path, change: dict[str, Any]) -> None:
    assert artifact.write(small(**change), tmp_path) != artifact.write(small(), tmp_path)


def test_an_array_is_written_as_it_reads_not_as_it_lies_in_memory(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    artifact.write(small(sources={"s": TrainedSource("als", {"item_factors": array})}), tmp_path)
    assert np.array_equal(artifact.load(tmp_path).sources["s"].arrays["item_factors"], array)


def test_versions_stay_and_current_moves(tmp_path: Path) -> None:
    first = artifact.write(small(), tmp_path)
    second = artifact.write(small(seed=9), tmp_path)
    assert artifact.load(tmp_path).version == second
    assert artifact.load(tmp_path, first).seed == 3
    artifact.write(small(), tmp_path)
    assert artifact.load(tmp_path).version == first
    assert {path.name for path in tmp_path.iterdir()} == {"current", first, second}


def test_a_damaged_version_is_repaired_by_writing_it_again(tmp_path: Path) -> None:
    version = artifact.write(small(), tmp_path)
    (tmp_path / version / "popular.safetensors").write_bytes(b"")
    artifact.write(small(), tmp_path)
    assert artifact.load(tmp_path).version == version


def _edit_manifest(folder: Path, **fields: Any) -> None:
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest | fields))


def _truncate(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-3])


def _flip(name: str) -> Callable[[Path], object]:
    def flip(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        (folder / name).write_bytes(content)

    return flip


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate("popular.safetensors"), r"popular\.safetensors is damaged"),
        (_truncate("items.json"), r"items\.json is damaged"),
        (_truncate("prior"), r"prior is damaged"),
        (_truncate("catalogue.json"), r"catalogue\.json is damaged"),
        (_truncate("manifest.json"), r"manifest\.json is damaged"),
        (_flip("popular.safetensors"), r"popular\.safetensors is damaged"),
        (
            lambda folder: (folder / "popular.safetensors").unlink(),
            r"popular\.safetensors cannot be read",
        ),
        (lambda folder: (folder / "manifest.json").unlink(), r"manifest\.json cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), r"manifest\.json is damaged"),
        (
            lambda folder: _edit_manifest(folder, format=3),
            r"has format 3; this version of banditloop reads 1 and 2",
        ),
        (
            lambda folder: _edit_manifest(folder, seed=5),
            "not the one this version was written with",
        ),
        (lambda folder: _edit_manifest(folder, extra=5), "unknown field"),
        (lambda folder: (folder.parent / "current").unlink(), "current cannot be read"),
        (
            lambda folder: (folder.parent / "current").write_text("../elsewhere"),
            "does not name a version",
        ),
        (lambda folder: (folder.parent / "current").write_text(""), "does not name a version"),
        (lambda folder: (folder.parent / "current").write_bytes(b"\xff\xfe"), "cannot be read"),
        (
            lambda folder: (folder.parent / "current").write_text("0123456789abcdef"),
            "cannot be read",
        ),
    ],
)
def test_damage_is_one_readable_error(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    version = artifact.write(small(prior=b"rows"), tmp_path)
    damage(tmp_path / version)
    with pytest.raises(ArtifactError, match=message) as caught:
        artifact.load(tmp_path)
    assert "\n" not in caught.value.message
    assert caught.value.target


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_never_written(tmp_path: Path, value: float) -> None:
    bad = TrainedSource("popular", {"counts": np.array([1, value, 1], np.float32)})
    with pytest.raises(ArtifactError, match="not finite"):
        artifact.write(small(sources={"popular": bad}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_numbers_that_are_not_finite_are_never_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even with digests that fit: some other program wrote them."""
    with monkeypatch.context() as careless:
        careless.setattr(artifact, "_check_finite", lambda *_: None)
        bad = TrainedSource("popular", {"counts": np.array([1, np.nan, 1], np.float32)})
        artifact.write(small(sources={"popular": bad}), tmp_path)
    with pytest.raises(ArtifactError, match="counts holds numbers that are not finite"):
        artifact.load(tmp_path)


def test_a_file_outside_the_directory_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="outside its directory"):
        artifact._tensors(tmp_path, "../secret.safetensors", "")


@pytest.mark.parametrize(
    "change",
    [
        {"starts": np.array([0, 3])},
        {"starts": np.array([0, 4, 3])},
        {"starts": np.array([1, 2, 3])},
        {"indices": np.array([0, 3, 1], np.int32)},
        {"indices": np.array([0, -1, 1], np.int32)},
        {"weights": np.ones(2, np.float32)},
        {"items": ("a", "b", "b")},
        {"users": ("1", "1")},
    ],
    ids=str,
)
def test_histories_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="histories"):
        replace(HISTORIES, **change)


def test_an_artifact_of_format_1_is_opened_and_answers_as_before() -> None:
    """Its histories serve as what is known of users.

    What is sent stands behind what is known since, so that a sum may round otherwise.
    """
    opened = artifact.load(EARLIER)
    assert opened.histories is not None
    assert opened.items == opened.histories.items
    answers = msgspec.json.decode((EARLIER / "answers.json").read_bytes())
    for asked, (ids, scores) in answers.items():
        name, user, *sent = asked.split()
        known = opened.histories.profile(user)
        history = tuple(item for item in sent if item.startswith("item"))
        source = load_sources(opened)[name]
        assert isinstance(source, LocalSource)
        found = source.propose(SourceRequest(user, history, profile=known), 7)
        assert list(found.ids) == ids, asked
        np.testing.assert_allclose(found.scores, scores, rtol=1e-6, err_msg=asked)


def test_it_is_written_anew_without_its_users(tmp_path: Path) -> None:
    artifact.write(artifact.load(EARLIER), tmp_path)
    assert artifact.load(tmp_path).histories is None
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"user-1" not in written
    assert b"user-1" in next(EARLIER.glob("*/histories.safetensors")).read_bytes()


def test_a_prior_is_kept_as_it_is(tmp_path: Path) -> None:
    artifact.write(small(prior=b"\x00rows"), tmp_path)
    assert artifact.load(tmp_path).prior == b"\x00rows"


def test_a_source_asks_for_the_shapes_it_needs() -> None:
    source = TrainedSource("als", {"item_factors": np.ones((3, 2), np.float32)})
    assert source.array("item_factors", 3, None).shape == (3, 2)
    for name, shape in [("item_factors", (4, None)), ("item_factors", (3,)), ("other", (3, 2))]:
        with pytest.raises(ArtifactError):
            source.array(name, *shape)
