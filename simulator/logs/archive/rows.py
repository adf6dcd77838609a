"""Rows of an archive as objects, for whoever looks at one after the other."""

from collections.abc import Callable, Iterator

import numpy as np

from banditloop_client.schemas import Item
from bandits.decide import place_among, places_left
from bandits.log.encoded_decisions import whole_record
from bandits.log.join import JoinedDecision
from bandits.log.positions import position_ms
from policies.items.catalogue import Catalogue
from simulator.logs.rows import LoggedDecision


def decision_rows(
    joined: JoinedDecision,
    catalogue: Catalogue | None = None,
    item: Callable[[str], Item | None] | None = None,
) -> Iterator[LoggedDecision]:
    """Yield a row per slot; in a slate, each among the actions that earlier slots have left.

    Args:
        joined: A decision with the rewards of its slots.
        catalogue: The catalogue that the decision names.
        item: Gives an item as that version has it.
    """
    record = whole_record(joined.record)
    pmfs, scores = record.pmfs(), record.source_scores()
    for slot, reward in zip(joined.slots, joined.rewards, strict=True):
        ids, chosen, pmf = record.action_ids, record.chosen[slot], pmfs[slot]
        features, slot_scores = record.features, scores

        # A later slot chooses among what the slots before it, and the page's rules, have left.
        earlier, page = record.chosen[:slot], record.page
        offsets = None if page is None else page.after(earlier)
        if slot or offsets is not None:
            places = places_left(len(ids), earlier, offsets)
            left, chosen = places.tolist(), place_among(places, chosen)
            ids = [ids[k] for k in left]
            pmf = np.ascontiguousarray(pmf[left])
            features = None if features is None else [features[k] for k in left]
            slot_scores = {source: values[left] for source, values in scores.items()}

        yield LoggedDecision(
            event_id=record.event_id,
            context=record.context,
            action_ids=ids,
            chosen=chosen,
            propensity=float(pmf[chosen]),
            reward=reward,
            features=features,
            scores=slot_scores,
            pmf=pmf,
            slot=slot,
            time_ms=position_ms(joined.position),
            record=record,
            catalogue=catalogue,
            item=item,
        )
