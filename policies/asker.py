"""Who asks for a decision, and what the sources are told of them."""

from collections.abc import Sequence
from typing import NamedTuple

from policies.profiles.known_user import LiveHistory
from policies.profiles.part import ProfileEvent
from policies.requests import RankRequest
from policies.rules.ruling import Admission
from policies.sources.base import SourceRequest
from policies.sources.source_set import SourceSet


class Asker(NamedTuple):
    """Who asks for a decision, as far as the policy looks at them.

    Attributes:
        user: the pseudonym that the decision is logged under.
        keyed: the keyed pseudonyms, by which a file of users knows them.
        live: what the log says that they did.
        held_back: what they are not to be offered again.
        profile: what the decision's record says of the profile.
        repeats: whether what is known of them may be proposed again; what may not is held back.
        did: what they did, newest first.
    """

    user: str | None = None
    keyed: tuple[str, ...] = ()
    live: LiveHistory | None = None
    held_back: frozenset[str] = frozenset()
    profile: str | None = None
    repeats: bool = False
    did: Sequence[ProfileEvent] = ()

    def done(self) -> dict[str, list[str]]:
        """Return by what was done the items that it was done with."""
        found: dict[str, dict[str, None]] = {}
        for event in self.did:
            found.setdefault(event.type, {})[event.item] = None
        return {kind: list(items) for kind, items in found.items()}


def asked_of_sources(
    request: RankRequest,
    asker: Asker,
    sources: SourceSet,
    admission: Admission | None = None,
    placed: Sequence[str] = (),
) -> SourceRequest:
    """Return what each source is told; what is known of the user is looked up once.

    Args:
        request: the decision's.
        asker: who asks.
        sources: with what is known of users.
        admission: what the filters admit.
        placed: what stands on the page already.
    """
    known = None
    if asker.keyed and sources.profiles is not None:
        known = sources.profiles.find_all(asker.keyed)
    return SourceRequest(
        request.user_id,
        tuple(request.history),
        asker.held_back.union(request.exclude, placed),
        known,
        request.context,
        asker.live,
        asker.repeats,
        admission,
    )
