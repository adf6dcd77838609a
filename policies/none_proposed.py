"""Why there is nothing to choose from: the errors, and what is to be done about each."""

from collections.abc import Iterable, Mapping
from itertools import islice

import numpy as np

from bandits.errors import BanditloopError, NoCandidatesError, SourceError, UnknownUserError
from policies.asker import Asker
from policies.items.offering import Offering
from policies.offered import Offered
from policies.rules.ruling import Admission
from policies.sources.base import SourceRequest

NOTHING_PROPOSED = (NoCandidatesError, UnknownUserError)
"""Nothing is left to choose from for a user: such as who has turned to every item there is."""
NO_ROW = np.zeros(1, np.intp)
"""The row of an item of which filters know nothing."""
MOST_REASONS = 3
"""Reasons that a message names; who has mended these is told of the next."""


def why_nothing(
    offered: Offered,
    asked: SourceRequest,
    asker: Asker,
    failed: Mapping[str, str],
    admission: Admission | None,
) -> BanditloopError:
    """Return the error that says why nothing was proposed; each is mended in another place.

    Args:
        offered: what may be offered, and the sources.
        asked: what these were told.
        asker: who asks.
        failed: by source that failed, why.
        admission: what the filters admit; None: there are none.
    """
    if failed:
        why = "; ".join(failed.values())
        message = f"no source proposed anything ({why}): try again in a moment"
        return SourceError(message, "sources")

    limits = offered.offering.limits
    if admission is not None and (why := _none_by_filter(offered.offering, admission)):
        return NoCandidatesError(why, "filter")
    if why := _none_for_anybody(offered):
        return NoCandidatesError(why, "actions")

    # Where all are taken away, no source is at fault, whatever it knows of the user.
    back = " or held back by repeat" if asker.held_back else ""
    if limits and sum(item in offered.offering for item in asked.exclude) == len(offered.offering):
        return NoCandidatesError(
            f"each of the {len(offered.offering):,} items that may be offered is excluded{back}",
            "exclude",
        )

    return _none_for_user(asked, asker, " that may be offered" if limits else "", back)


def _none_for_user(asked: SourceRequest, asker: Asker, beside: str, back: str) -> BanditloopError:
    """Return the error that says why there is nothing for this user.

    Args:
        asked: what the sources were told.
        asker: who asks.
        beside: of which items it is said.
        back: what else is taken away than what is excluded.
    """
    known = 0 if asked.profile is None else asked.profile.indices.size
    if known and not asked.repeats:
        return NoCandidatesError(
            f"no source proposed anything{beside} that this user does not know already"
            f" ({known + len(asked.history):,} items) and that is not excluded: put new items, or"
            " say in the spec what may come again (profile, and repeat)",
            "user_id",
        )
    if asked.user_id is not None and not known and not asked.history and asker.live is None:
        return UnknownUserError(
            f"no source proposed anything{beside} for this user: send a history, or configure"
            " a source for everyone (popular)",
            "user_id",
        )
    return NoCandidatesError(
        f"no source proposed anything{beside} that is not excluded{back}", "exclude"
    )


def _none_for_anybody(offered: Offered) -> str:
    """Return why no source can propose anything to anybody; empty if one could."""
    offering = offered.offering
    known = [follower.known for follower in offered.sources.followers]
    none_known = offered.all_follow and not any(each is None or each for each in known)
    if not offering.limits and not none_known:
        return ""
    if not len(offering.catalogue):
        return "the catalogue has no items: put some, or send the actions to choose from"
    if not len(offering):
        filters = offering.ruled is not None and offering.ruled.rules.filter is not None
        refused = ", or refused by the policy's filter" if filters else ""
        return (
            f"none of the catalogue's {len(offering.catalogue):,} items may be offered now:"
            f" each is hidden, or outside its time{refused}"
        )

    if none_known:
        return (
            f"no source knows any of the {len(offering):,} items that may be offered: train the"
            " sources on them, or add one that needs no training (fresh, content)"
        )
    return ""


def _none_by_filter(offering: Offering, admission: Admission) -> str:
    """Return why the filters admit nothing whatever is proposed; empty if they admit anything."""
    if offering.limits and not len(offering.catalogue):
        return ""
    if offering.limits:
        if admission.count():
            return ""
        why = admission.why_nothing(offering.feature_names)
        return none_admitted(len(offering.catalogue), "items", why)
    if admission.at(NO_ROW).any():
        return ""
    return (
        "no items were ever put, so the filters of the policy and the request know nothing of what"
        " the sources propose: put the items"
    )


def none_admitted(count: int, what: str, why: Iterable[str]) -> str:
    """Return the message of an error: the filters admit nothing.

    Args:
        count: how many there are.
        what: what they are.
        why: what filters ask and nobody answers, as far as it is known.
    """
    said = "; ".join(
        ["is admitted by the filters of the policy and the request", *islice(why, MOST_REASONS)]
    )
    return f"none of the {count:,} {what} {said}"
