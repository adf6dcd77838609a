"""From a joined decision to lessons: its interactions, or the chosen actions alone."""

from collections.abc import Iterator

from bandits.errors import RefusedError
from bandits.log.join import JoinedDecision
from bandits.types import ChosenRow, Interaction
from policies.catalogue import Catalogue
from policies.features import chosen_rows, featurise_record
from policies.mixture import source_actions
from policies.spec import PolicySpec


def taught_interactions(
    joined: JoinedDecision, spec: PolicySpec, catalogue: Catalogue
) -> Iterator[Interaction]:
    """Yield one interaction per slot, among the actions that were left.

    Of a mixture's decision the actions are its sources, and there is none without a credit.

    Args:
        joined: the decision with its rewards.
        spec: the one it was made with.
        catalogue: the one it was made from.

    Raises:
        RefusedError: it is credited to a source that scored none of its actions.
    """
    record = joined.record
    pmfs = record.pmfs()
    context, actions = featurise_record(spec, catalogue, record)

    for slot, reward in zip(joined.slots, joined.rewards, strict=True):
        # Each earlier slot took one action.
        index, earlier = record.chosen[slot], record.chosen[:slot]
        remaining = [k for k in range(len(actions)) if k not in earlier]
        available = actions if not earlier else actions.take(remaining)
        chosen, propensity = remaining.index(index), float(pmfs[slot, index])

        if spec.kind == "mixture":
            if record.credit is None:
                return
            credited = record.credit.credited[slot]
            name = record.credit.sources[credited]
            propensity = float(record.credit.pmfs()[slot, credited])
            available = source_actions(available)
            if name not in available.ids:
                raise RefusedError(
                    f"it is credited to {name!r}, which scored none of its actions", "credit"
                )
            chosen = available.ids.index(name)

        yield Interaction(record.event_id, slot, context, available, chosen, propensity, reward)


def taught_rows(joined: JoinedDecision, spec: PolicySpec, catalogue: Catalogue) -> list[ChosenRow]:
    """Return the chosen action of each slot, without making the features of the others.

    Args:
        joined: the decision with its rewards.
        spec: the one it was made with.
        catalogue: the one it was made from.
    """
    if spec.kind == "mixture":
        return [ChosenRow.of(taught) for taught in taught_interactions(joined, spec, catalogue)]

    record = joined.record
    indices = [record.chosen[slot] for slot in joined.slots]
    chosen = chosen_rows(spec, catalogue, record, indices)

    # Each earlier slot took one action.
    actions = len(record.action_ids)
    return [
        ChosenRow(action_id, shared, own, reward, actions - slot, record.propensity(slot))
        for (action_id, shared, own), slot, reward in zip(
            chosen, joined.slots, joined.rewards, strict=True
        )
    ]
