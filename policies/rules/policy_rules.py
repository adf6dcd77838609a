"""All rules of a policy, compiled: what a decision is made under, whoever asks."""

from collections.abc import Sequence

from policies.rules.boosts import Boost, Boosts
from policies.rules.conditions import Looks
from policies.rules.filters import Filter, FilterRule


class PolicyRules:
    """The rules of a policy, compiled.

    ``filter``: what may be chosen; None: anything. ``boosts``: what is added to scores; None:
    nothing. ``looks``: what they look at, and ``looks_by_field`` what each does, by its field in
    the spec. ``item_fields``: the features of items that are kept for them, and for the filters of
    requests.
    """

    def __init__(
        self,
        filter_rule: FilterRule | None = None,
        boosts: Sequence[Boost] = (),
        cap: float = 0.0,
    ) -> None:
        """Compile a policy's rules.

        Args:
            filter_rule: what may be chosen.
            boosts: what is added to scores.
            cap: how much that is at most.

        Raises:
            SpecError: a condition is none.
        """
        self.filter_rule = filter_rule
        self.filter: Filter | None = None
        if filter_rule is not None:
            self.filter = Filter(
                filter_rule.where,
                "filter.where",
                admits_unknown=filter_rule.unknown == "admit",
            )
        self.boosts = Boosts(boosts, cap) if boosts else None

        self.looks_by_field: dict[str, Looks] = {}
        if self.filter is not None:
            self.looks_by_field["filter.where"] = self.filter.condition.looks
        if self.boosts is not None:
            self.looks_by_field.update(self.boosts.looks_by_field)
        self.looks = Looks.at_all(self.looks_by_field.values())
        named = [] if filter_rule is None else filter_rule.fields
        self.item_fields = sorted({*self.looks.items, *named})
