import numpy as np
import pytest

from bandits.decide import decide, left_after
from bandits.errors import NoCandidatesError
from bandits.exploration import Softmax
from bandits.page import HeardPage, LoggedPage
from bandits.types import ActionSet, Context

BRANDS = np.array([0, 0, 1, 1, 2])
ACTIONS = ActionSet(tuple("abcde"))
SALT = b"s"


def softmax(scores):
    return Softmax(0.1).pmf(scores, 0)


class Boosted:
    """A policy by scores of 0 and what is added to them."""

    def pmf(self, context, actions):
        return softmax(actions.boosted(np.zeros(len(actions))))


class OnePerBrand:
    """A page without two of a brand, and with less of what is next to what was chosen last."""

    def after(self, chosen):
        if not chosen:
            return None
        offsets = -0.1 / (1.0 + np.abs(np.arange(5) - chosen[-1]))
        offsets[np.isin(BRANDS, BRANDS[list(chosen)])] = np.nan
        return offsets


class Never:
    """A page on which nothing may stand."""

    def after(self, chosen):
        return np.full(5, np.nan)


def drawn(page, slots=5, event_id="e"):
    return decide(
        Boosted(), Context(), ACTIONS, event_id=event_id, salt=SALT, slots=slots, page=page
    )


def test_what_a_page_bars_has_no_probability_and_ends_the_page_where_nothing_is_left():
    for event in range(50):
        decision = drawn(OnePerBrand(), event_id=f"e{event}")
        assert sorted(BRANDS[list(decision.chosen)]) == [0, 1, 2]
        for slot, pmf in enumerate(decision.pmfs):
            barred = np.isin(BRANDS, BRANDS[list(decision.chosen[:slot])])
            assert (pmf[barred] == 0).all()
            assert (pmf[~barred] > 0).all()
            assert pmf.sum() == pytest.approx(1.0, abs=1e-12)


def test_what_a_page_adds_is_added_to_the_scores_of_the_next_slot():
    page = OnePerBrand()
    decision = drawn(page)
    first = decision.chosen[0]
    left = BRANDS[first] != BRANDS
    expected = softmax(page.after([first])[left])
    heard = drawn(HeardPage(page))  # rounded to 11 bits
    np.testing.assert_allclose(decision.pmfs[1][left], expected, rtol=1e-12)
    np.testing.assert_allclose(heard.pmfs[1][left], expected, rtol=1e-2)


def test_the_record_of_a_page_derives_the_same_bytes():
    for event in range(50):
        heard = HeardPage(OnePerBrand())
        decision = drawn(heard, event_id=f"e{event}")
        slots = len(decision.chosen)
        data = heard.encoded(slots)
        assert len(data) == 2 * 5 * (slots - 1)  # nothing was said of the first slot

        logged = LoggedPage(data, slots, 5)
        for slot in range(slots):
            remaining, left = left_after(ACTIONS, decision.chosen[:slot], logged)
            pmf = np.zeros(5)
            pmf[remaining] = Boosted().pmf(Context(), left)
            assert pmf.tobytes() == decision.pmfs[slot].tobytes()


def test_a_page_that_says_nothing_is_nothing():
    class Silent:
        def after(self, chosen):
            return np.zeros(5) if len(chosen) % 2 else None

    heard = HeardPage(Silent())
    decision = drawn(heard)
    assert heard.encoded(5) == b""
    assert decision.pmfs.tobytes() == drawn(None).pmfs.tobytes()
    assert decision.chosen == drawn(None).chosen
    assert LoggedPage(b"", 5, 5).after([1, 2]) is None


def test_a_page_that_leaves_nothing_for_its_first_slot_is_refused():
    with pytest.raises(NoCandidatesError, match="leaves room for nothing") as refused:
        drawn(Never(), slots=1)
    assert refused.value.target == "page"


def test_offsets_add_to_boosts():
    boosted = ActionSet(tuple("abcde"), boosts=np.array([0.0, 0.1, 0.2, 0.3, 0.4]))
    remaining, left = left_after(boosted, [0], OnePerBrand())
    assert remaining.tolist() == [2, 3, 4]
    expected = np.array([0.2, 0.3, 0.4]) - 0.1 / np.array([3.0, 4.0, 5.0])
    np.testing.assert_allclose(left.boosts, expected)
