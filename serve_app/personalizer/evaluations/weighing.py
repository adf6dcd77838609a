"""What feature importances are: how much each feature adds to the scores of logged decisions.

Of each decision the terms are asked for that ``banditloop explain`` tells, with the model that is
served now. A feature's score is the sum of what its terms add, without their signs, beside the
largest such sum. Run as a program it reads a request from its input, and writes scores.
"""

import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

from banditloop_client.explain_schemas import Explanation
from bandits.values import FeatureMap
from serve_app.store.evaluations.kept import FeatureWeight

MOST_DECISIONS = 2000
"""Decisions that are looked at: of more, every second, fourth and so on."""
LONGEST_S = 1800.0
OF_ITEM, ID = "item", "id"
_IDS = "i"
_BARE = {"context": "FromUrl", "features": "j"}
"""The namespaces of features that were sent in none."""
Found = TypeVar("Found")


class WeighingRequest(msgspec.Struct, frozen=True):
    """Which decisions are looked at: those of a policy, in a part of its log."""

    address: bytes
    after: str
    through: str


class Weighed(msgspec.Struct, frozen=True):
    """What features weigh, the heaviest first; or why nothing does.

    ``is_done``: whether there is no more to say, though the model has learned nothing of them yet.
    """

    scores: list[FeatureWeight]
    said: str = ""
    is_done: bool = True


def weigh_features(request: WeighingRequest) -> Weighed:
    """Return what features weigh, computed in a process of its own.

    Args:
        request: which decisions.
    """
    done = subprocess.run(  # noqa: S603 - this program
        ["nice", "-n", "10", sys.executable, "-m", __name__],  # noqa: S607
        input=msgspec.msgpack.encode(request),
        capture_output=True,
        timeout=LONGEST_S,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-300:]
        return Weighed([], said, is_done=False)
    return msgspec.msgpack.decode(done.stdout, type=Weighed)


def importances_of(explanations: Iterable[Explanation]) -> Weighed:
    """Return what features weigh in explanations, or why nothing does."""
    looked_at, summed, notes = 0, 0, list[str]()

    def passed() -> Iterator[Explanation]:
        nonlocal looked_at, summed
        for each in explanations:
            looked_at += 1
            summed += any(action.score is not None for action in each.actions)
            if each.note and not notes:
                notes.append(each.note)
            yield each

    scores = weights_of(passed())
    if scores:
        return Weighed(scores)
    if not looked_at:
        return Weighed([], "no decision from then to then is in the archive", is_done=False)
    if not summed:
        said = "no decision from then to then has a score that is a sum"
        return Weighed([], ": ".join([said, *notes]), is_done=False)
    return Weighed(
        [], "the model that serves has learned nothing yet of what decisions from then to then have"
    )


def weights_of(explanations: Iterable[Explanation]) -> list[FeatureWeight]:
    """Return what features weigh in explanations, the heaviest first, which has 1.

    What a product of features adds is shared between them.
    """
    sums: defaultdict[tuple[str, str], float] = defaultdict(float)
    for explanation in explanations:
        for action in explanation.actions:
            for term in action.terms:
                for feature in term.features:
                    sums[_named(feature)] += abs(term.adds) / len(term.features)

    largest = max(sums.values(), default=0.0)
    if not largest:
        return []
    ordered = sorted(sums.items(), key=lambda each: (-each[1], each[0]))
    return [FeatureWeight(*names, value / largest) for names, value in ordered]


def _named(feature: str) -> tuple[str, str]:
    """Return a feature's namespace and name, as clients have sent them; without a text.

    What was sent in none is where Personalizer had it.
    """
    space, _, rest = feature.partition(".")
    if space == OF_ITEM:
        return _IDS, ID
    namespace, _, name = rest.partition("=")[0].rpartition(".")
    return namespace or _BARE.get(space, space), name


def _explanations(request: WeighingRequest) -> Iterator[Explanation]:
    from bandits.log.records import DecisionRecord  # noqa: PLC0415 - a replica does without
    from policies.explain.explained import Explainer  # noqa: PLC0415
    from policies.items.past import ItemsPast  # noqa: PLC0415
    from policies.spec import decode_spec  # noqa: PLC0415
    from serve_app.admin.replayed.verification import LogAddress  # noqa: PLC0415

    address = msgspec.msgpack.decode(request.address, type=LogAddress)
    stored = address.open()
    head = stored.head()
    if head is None:
        return
    published = stored.find(head)[1]
    spec = decode_spec(stored.history.blob(published.spec))
    explainer, items, timeline = (
        Explainer(spec, published.snapshot),
        ItemsPast(address.items()),
        stored.items(),
    )

    def features_of(item_id: str) -> FeatureMap | None:
        item = timeline.item(item_id)
        return None if item is None else item.features

    archives = [history.archive for history in address.histories(stored.partitions)]
    decisions = (
        entry.record
        for archive in archives
        if archive is not None
        for entry in archive.entries(request.after, request.through, kinds=["decision"])
    )
    for record in thinned(decisions, MOST_DECISIONS):
        if isinstance(record, DecisionRecord):
            catalogue = items.catalogue(record.catalogue, stored.history.blob)
            yield explainer.explain(catalogue, record, features_of)


def thinned(found: Iterable[Found], most: int) -> list[Found]:
    """Return all, or where they are many, at least half of ``most``, evenly spread.

    Args:
        found: of what.
        most: how many at most.
    """
    kept: list[Found] = []
    stride = 1
    for number, each in enumerate(found):
        if number % stride == 0:
            kept.append(each)
            if len(kept) > most:
                del kept[1::2]
                stride *= 2
    return kept


if __name__ == "__main__":
    asked = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=WeighingRequest)
    sys.stdout.buffer.write(msgspec.msgpack.encode(importances_of(_explanations(asked))))
