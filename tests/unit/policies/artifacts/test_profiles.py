"""Profiles: what was written of a user is found by pseudonym, and a file of no use says why."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.events import coded_events

from bandits.errors import ArtifactError
from policies.artifacts.histories import Histories
from policies.artifacts.profile_file import ABOUT, open_profiles, write_profiles
from policies.artifacts.profile_lookup import filed_profile
from policies.artifacts.profiles import Profiles
from policies.artifacts.source_artifact import Artifact, load, write
from policies.pseudonyms import pseudonym
from policies.ranker import Ranker
from policies.requests import RankRequest
from policies.sources import load_sources
from policies.spec import ArtifactSource, PolicySpec
from policies.training.histories import histories_of

SALT, OTHER = b"a salt of sixteen", b"another of sixteen"
ITEMS = ("a", "b", "ç", "d")
HISTORIES = Histories(
    items=ITEMS,
    users=("ann", "bob", "cy"),
    starts=np.array([0, 3, 3, 5]),
    indices=np.array([0, 1, 3, 0, 2], np.int32),
    weights=np.array([1, 0.5, 0, 2, 3], np.float32),
    times=np.array([30, 10, 20, -1, 5]),
    types=np.array([0, 1, 0, 1, 1], np.int16),
    type_names=("view", "cart"),
)
ARTIFACT = Artifact((), ITEMS, {})


def found(profiles: Profiles | None, user: str) -> list[tuple[int, float]] | None:
    assert profiles is not None
    profile = profiles.find(pseudonym(SALT, user))
    if profile is None:
        return None
    return list(zip(profile.indices.tolist(), profile.weights.tolist(), strict=True))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_profiles(tmp_path / "profiles.parquet", HISTORIES, salt=SALT, data="d", artifact="v")
    return tmp_path / "profiles.parquet"


def test_what_was_written_is_found(path: Path) -> None:
    """Oldest first, over the artifact's items; an item it lacks is left out."""
    for profiles in (Profiles.of(HISTORIES, SALT), open_profiles(str(path), ARTIFACT, SALT)[0]):
        assert found(profiles, "ann") == [(1, 0.5), (3, 0.0), (0, 1.0)]
        assert found(profiles, "bob") == []
        assert found(profiles, "cy") == [(0, 2.0), (2, 3.0)]
        assert found(profiles, "a stranger") is None
        assert profiles is not None
        assert len(profiles) == 3

    others = Artifact((), ("d", "x", "a"), {})
    assert found(open_profiles(str(path), others, SALT)[0], "ann") == [(0, 0.0), (2, 1.0)]


def test_of_many_users_each_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over several row groups, and the same from a file as from the histories."""
    monkeypatch.setattr("policies.artifacts.profile_file.USERS_A_GROUP", 70)
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 6, 300)
    items = tuple(map(str, range(9)))
    rows = [np.sort(rng.choice(9, count, replace=False)) for count in counts]
    many = Histories(
        items,
        tuple(f"u{i}" for i in range(300)),
        np.append(0, np.cumsum(counts)),
        np.concatenate(rows).astype(np.int32),
        rng.random(counts.sum()).astype(np.float32),
    )
    write_profiles(tmp_path / "p", many, salt=SALT)
    read = open_profiles(str(tmp_path / "p"), Artifact((), items, {}), SALT)[0]
    made = Profiles.of(many, SALT)
    for number, user in enumerate(many.users):
        assert found(read, user) == found(made, user)
        assert [item for item, _ in found(read, user) or []] == rows[number].tolist()


def test_pseudonyms_that_share_a_half_are_told_apart() -> None:
    keys = np.array([[7, 1], [7, 2], [9, 0]], np.uint64)
    weights = np.ones(3, np.float32)
    profiles = Profiles(keys, np.arange(4), np.arange(3, dtype=np.int32), weights)
    for row, (first, second) in enumerate(keys.tolist()):
        profile = profiles.find(f"{first:016x}{second:016x}")
        assert profile is not None
        assert profile.indices.tolist() == [row]
    assert profiles.find(f"{7:016x}{3:016x}") is None
    assert profiles.find("f" * 32) is None


def test_the_file_is_read_without_us(path: Path) -> None:
    """By time, oldest first; users under their pseudonyms, in order; no id of theirs anywhere."""
    rows = pq.read_table(path).to_pylist()
    users = sorted(HISTORIES.users, key=lambda user: pseudonym(SALT, user))
    assert [row["user"] for row in rows] == [pseudonym(SALT, user) for user in users]
    ann = rows[users.index("ann")]
    assert (ann["items"], ann["types"]) == (["b", "d", "a"], ["cart", "view", "view"])
    assert ann["weights"] == [0.5, 0.0, 1.0]
    assert [time.timestamp() for time in ann["times"]] == [0.01, 0.02, 0.03]
    assert rows[users.index("cy")]["times"][0] is None
    metadata = pq.read_metadata(path).metadata
    said = f"{rows} {metadata}"
    assert "ann" not in said
    assert SALT.decode() not in said


def test_the_last_items_are_kept(tmp_path: Path) -> None:
    write_profiles(tmp_path / "p", HISTORIES, salt=SALT, kept=2)
    profiles = open_profiles(str(tmp_path / "p"), ARTIFACT, SALT)[0]
    assert found(profiles, "ann") == [(3, 0.0), (0, 1.0)]


BOUGHT = [
    ("ann", "a", 3.0, "purchase", 20),
    ("ann", "a", 1.0, "view", 90),
    ("ann", "b", 3.0, "purchase", 50),
    ("ann", "gone", 3.0, "purchase", -1),
    ("bob", "b", 1.0, "view", 10),
]


def test_a_look_at_what_was_bought_does_not_undo_the_purchase(tmp_path: Path) -> None:
    """The file has each type of what was done with an item, whatever came later."""
    write_profiles(tmp_path / "p", histories_of(coded_events(BOUGHT)), salt=SALT)
    profiles, _ = open_profiles(str(tmp_path / "p"), ARTIFACT, SALT, {"purchase", "hide"})
    assert profiles is not None
    before = profiles.before([pseudonym(SALT, "ann")])
    assert before is not None
    assert [(each.item, each.time_ms) for each in before.events] == [
        ("b", 50),
        ("a", 20),
        ("gone", -1),
    ]
    assert profiles.before([pseudonym(SALT, "bob")]) is None
    assert profiles.before([pseudonym(SALT, "a stranger")]) is None

    # Nobody asks about it, so nothing is kept in memory; the export says all.
    assert (
        open_profiles(str(tmp_path / "p"), ARTIFACT, SALT)[0].before([pseudonym(SALT, "ann")])
        is None
    )
    told = filed_profile(str(tmp_path / "p"), pseudonym(SALT, "ann"), salt=SALT)
    assert sorted((each.item, each.type, each.weight) for each in told or []) == [
        ("a", "purchase", 0.0),
        ("a", "view", 3.0),
        ("b", "purchase", 3.0),
        ("gone", "purchase", 3.0),
    ]


def test_ids_that_were_merged_are_one_user(tmp_path: Path) -> None:
    """What the file says of each is joined; of an item that both have the stronger counts."""
    write_profiles(tmp_path / "p", histories_of(coded_events(BOUGHT)), salt=SALT)
    profiles, _ = open_profiles(str(tmp_path / "p"), ARTIFACT, SALT, {"purchase", "view"})
    assert profiles is not None
    ann, bob, stranger = (pseudonym(SALT, each) for each in ("ann", "bob", "x"))
    for users in ((bob, ann), (bob, stranger, ann)):
        both = profiles.find_all(users)
        assert both is not None
        weights = dict(zip(both.indices.tolist(), both.weights.tolist(), strict=True))
        assert weights == {1: 3.0, 0: 3.0}
        before = profiles.before(users)
        assert before is not None
        assert [(each.time_ms, each.item) for each in before.events] == [
            (90, "a"),
            (50, "b"),
            (20, "a"),
            (10, "b"),
            (-1, "gone"),
        ]
        assert before.version != (profiles.before([ann]) or before).version
    assert profiles.find_all([stranger, ann]) == profiles.find(ann)
    assert profiles.find_all([stranger, "0" * 32]) is None


def test_a_file_of_a_build_before_says_the_latest_of_each_item(path: Path) -> None:
    """It has no columns of other types; nor has one in which there is nothing to say there."""
    assert "other_items" not in pq.read_schema(path).names
    profiles, _ = open_profiles(str(path), ARTIFACT, SALT, ["cart"])
    assert profiles is not None
    cy = profiles.before([pseudonym(SALT, "cy")])
    assert cy is not None
    assert [event.item for event in cy.events] == ["ç", "a"]


def test_the_same_histories_give_the_same_bytes(path: Path, tmp_path: Path) -> None:
    write_profiles(tmp_path / "again", HISTORIES, salt=SALT, data="d", artifact="v")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert {each.name for each in tmp_path.iterdir()} == {"again", "profiles.parquet"}


def test_a_uri_does_as_well(path: Path) -> None:
    assert found(open_profiles(f"file://{path}", ARTIFACT, SALT)[0], "cy") == [(0, 2.0), (2, 3.0)]
    assert "no file" in open_profiles(f"file://{path}.not", ARTIFACT, SALT)[1]


def test_a_file_of_no_use_is_said_in_one_line(path: Path) -> None:
    """Without one, and with one of another salt, the service goes on."""
    profiles, note = open_profiles(str(path), ARTIFACT, OTHER)
    assert profiles is None
    assert note.startswith(f"profiles: {path} was written under another salt")

    profiles, note = open_profiles(f"{path}.not", ARTIFACT, SALT)
    assert profiles is None
    assert note.startswith(f"profiles: there is no file {path}.not")
    assert open_profiles(None, ARTIFACT, SALT) == (None, "")


def _table(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def _format(path: Path) -> None:
    raw = pq.read_schema(path).metadata[ABOUT].replace(b'"format":1', b'"format":9')
    pq.write_table(pq.read_table(path).replace_schema_metadata({ABOUT: raw}), path)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "is no file of profiles"),
    "empty": (lambda path: path.write_bytes(b""), "is no file of profiles"),
    "another": (lambda path: pq.write_table(pa.table({"x": [1]}), path), "no file of profiles"),
    "no weights": (lambda path: _table(path, lambda t: t.drop_columns("weights")), "is damaged"),
    "fewer types": (
        lambda path: _table(path, lambda t: t.set_column(2, "types", [[["view"]] * 3])),
        "is damaged",
    ),
    "order": (lambda path: _table(path, lambda t: t.take([1, 0, 2])), "order of their pseudonyms"),
    "format": (_format, "has format 9; this version of banditloop reads 1"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_one_readable_error(
    path: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(path)
    with pytest.raises(ArtifactError, match=message) as caught:
        open_profiles(str(path), ARTIFACT, SALT, {"view"})
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


def test_no_flipped_byte_changes_what_is_known(path: Path) -> None:
    """Either it is seen, or it was of no consequence."""
    content = path.read_bytes()
    before = [found(Profiles.of(HISTORIES, SALT), user) for user in HISTORIES.users]
    for at in range(0, len(content), 5):
        flipped = bytearray(content)
        flipped[at] ^= 255
        path.write_bytes(flipped)
        try:
            profiles, _ = open_profiles(str(path), ARTIFACT, SALT)
        except ArtifactError:
            continue
        assert [found(profiles, user) for user in HISTORIES.users] == before, at


def test_weights_are_numbers(path: Path) -> None:
    bad = dataclasses.replace(HISTORIES, weights=np.array([1, np.nan, 0, 2, 3], np.float32))
    write_profiles(path, bad, salt=SALT)
    with pytest.raises(ArtifactError, match="a weight is not a number"):
        open_profiles(str(path), ARTIFACT, SALT)


def test_an_artifact_of_format_1_brings_its_own() -> None:
    opened = load(Path(__file__).parents[3] / "fixtures" / "artifact_format_1")
    profiles, note = open_profiles(None, opened, SALT)
    assert note == ""
    assert opened.histories is not None
    expected = opened.histories.profile("user-2")
    assert expected is not None
    assert [item for item, _ in found(profiles, "user-2") or []] == expected.indices.tolist()


async def test_pools_are_the_same_as_from_an_artifact_of_format_1(tmp_path: Path) -> None:
    """From one that holds its users, and from one without beside a file of profiles."""
    opened = load(Path(__file__).parents[3] / "fixtures" / "artifact_format_1")
    assert opened.histories is not None
    write(opened, tmp_path)
    write_profiles(tmp_path / "profiles.parquet", opened.histories, salt=SALT)

    spec = PolicySpec("p", sources=[ArtifactSource("als"), ArtifactSource("popular")], artifact="a")
    rankers = []
    for artifact, where in ((opened, None), (load(tmp_path), str(tmp_path / "profiles.parquet"))):
        sources = list(load_sources(artifact, spec.sources).values())
        profiles, note = open_profiles(where, artifact, SALT)
        assert note == ""
        rankers.append(Ranker(spec, sources, salt=SALT, profiles=profiles))

    for user in (*opened.histories.users, "a stranger"):
        before, now = [await ranker.pool(RankRequest(user_id=user)) for ranker in rankers]
        assert before.ids == now.ids
        for name in before.scores:
            assert np.array_equal(before.scores[name], now.scores[name], equal_nan=True)
