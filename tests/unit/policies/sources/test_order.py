"""A history reaches a model oldest first, wherever it is known from."""

import numpy as np
import pytest

from policies.artifacts.histories import Histories, Profile
from policies.artifacts.profile_file import open_profiles, write_profiles
from policies.artifacts.profiles import Profiles
from policies.artifacts.source_artifact import Artifact, Calibration
from policies.profiles.known_user import LiveHistory
from policies.pseudonyms import pseudonym
from policies.sources import ItemOrder, LocalSource, SourceRequest

ITEMS = tuple("abcdefgh")
SALT = b"a salt"


class Watching:
    """A model that keeps what it was asked."""

    needs_history = True
    floor = -np.inf

    def raw(self, indices, weights):
        self.asked = "".join(ITEMS[place] for place in indices)
        self.weights = weights.tolist()
        return np.zeros(len(ITEMS), np.float32)


def asked(**request):
    model = Watching()
    LocalSource("watching", model, ItemOrder(ITEMS), Calibration()).propose(
        SourceRequest(**request), 3
    )
    return model


def known(items: str) -> Profile:
    places = np.array([ITEMS.index(item) for item in items], np.int32)
    return Profile("known", places, np.full(places.size, 0.5, np.float32))


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"history": tuple("dba")}, "dba"),
        ({"history": tuple("dbad")}, "bad"),
        ({"history": ("d", "no item", "a")}, "da"),
        ({"profile": known("hca")}, "hca"),
        ({"profile": known("hca"), "history": ("b",)}, "hcab"),
        ({"profile": known("hca"), "history": ("b", "h")}, "cabh"),
        ({"live": LiveHistory("live", {"c": 1.0, "a": 2.0})}, "ca"),
        ({"profile": known("ahc"), "live": LiveHistory("live", {"g": 1.0, "a": 2.0})}, "hcga"),
    ],
)
def test_what_is_newer_stands_behind(request_, expected):
    assert asked(**request_).asked == expected


def test_what_is_kept_of_one_decision_is_of_no_other():
    """An order that was asked of one history and pool answers another as if it were the first."""
    items = ItemOrder(ITEMS)
    mine, other = known("hca"), known("ge")
    for profile, history in ((mine, "b"), (mine, "b"), (mine, "bd"), (other, "bd"), (mine, "")):
        request = SourceRequest(profile=profile, history=tuple(history))
        found, anew = items.history(request), ItemOrder(ITEMS).history(request)
        assert (found.key, found.indices.tolist()) == (anew.key, anew.indices.tolist())

    pool, changing = ("c", "no item"), ["a"]
    assert items.places_of(pool).tolist() == items.places_of(pool).tolist() == [2, -1]
    assert items.places_of(("b",)).tolist() == [1]
    assert items.places_of(changing).tolist() == [0]
    changing[0] = "d"
    assert items.places_of(changing).tolist() == [3]


def test_an_item_that_is_sent_again_speaks_as_strongly_as_it_is_known_to():
    assert asked(profile=known("hca"), history=("c", "b")).weights == [0.5, 0.5, 0.5, 1.0]
    live = LiveHistory("live", {"g": 1.0, "a": 0.25})
    assert asked(profile=known("ah"), live=live).weights == [0.5, 1.0, 0.5]


def test_histories_and_the_file_of_profiles_keep_the_order_of_the_times(tmp_path):
    histories = Histories(
        items=ITEMS,
        users=("ann", "bob"),
        starts=np.array([0, 3, 5]),
        indices=np.array([0, 2, 7, 1, 3], np.int32),
        weights=np.array([1, 2, 3, 4, 5], np.float32),
        times=np.array([30, 10, 20, -1, -1]),
    )
    ann = [2, 7, 0], [2.0, 3.0, 1.0]
    bob = [1, 3], [4.0, 5.0]
    write_profiles(tmp_path / "profiles.parquet", histories, salt=SALT)
    filed, said = open_profiles(str(tmp_path / "profiles.parquet"), Artifact((), ITEMS, {}), SALT)
    assert said == ""
    assert filed is not None
    for row, (user, expected) in enumerate({"ann": ann, "bob": bob}.items()):
        found = [histories.row(row)]
        for profiles in (Profiles.of(histories, SALT), filed):
            profile = profiles.find(pseudonym(SALT, user))
            assert profile is not None
            found.append((profile.indices, profile.weights))
        for indices, weights in found:
            assert (indices.tolist(), weights.tolist()) == expected
