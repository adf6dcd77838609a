"""All rules of a policy, compiled: what a decision is made under, whoever asks."""

from collections.abc import Sequence

from policies.rules.boosts import Boost, Boosts
from policies.rules.conditions import Looks
from policies.rules.filters import Filter, FilterRule
from policies.rules.pages.page import Page
from policies.rules.placements import Placement, Placements
from policies.rules.quotas.compiled import Quotas
from policies.rules.quotas.quota import Exposure, Quota


class PolicyRules:
    """The rules of a policy, compiled.

    ``filter``: what may be chosen; None: anything. ``boosts``: what is added to scores; None:
    nothing. ``quotas``: what is added so that shares come out; None: there are none. ``page``: what
    may stand beside what; None: anything. ``placements``: what stands on a page without a draw;
    None: nothing. ``looks``: what conditions look at, and ``looks_by_field`` what each does, by its
    field in the spec. ``item_fields``: the features of items that are kept for them, and for the
    filters of requests.
    """

    def __init__(
        self,
        filter_rule: FilterRule | None = None,
        boosts: Sequence[Boost] = (),
        cap: float = 0.0,
        quotas: Sequence[Quota] = (),
        exposure: Exposure | None = None,
        page: Page | None = None,
        placements: Sequence[Placement] = (),
    ) -> None:
        """Compile a policy's rules.

        Args:
            filter_rule: what may be chosen.
            boosts: what is added to scores.
            cap: how much that is at most.
            quotas: which shares groups of items have.
            exposure: which share each value of a feature has.
            page: what may stand beside what.
            placements: what stands on a page without a draw.

        Raises:
            SpecError: a condition is none, or none that it could be.
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
        self.quotas = Quotas(quotas, exposure) if quotas or exposure else None
        self.page = page
        self.placements = Placements(placements) if placements else None

        self.looks_by_field: dict[str, Looks] = {}
        if self.filter is not None:
            self.looks_by_field["filter.where"] = self.filter.condition.looks
        if self.boosts is not None:
            self.looks_by_field.update(self.boosts.looks_by_field)
        if self.quotas is not None:
            self.looks_by_field.update(self.quotas.looks_by_field)
        if self.placements is not None:
            self.looks_by_field.update(self.placements.looks_by_field)
        self.looks = Looks.at_all(self.looks_by_field.values())
        named = [] if filter_rule is None else filter_rule.fields
        of_pages = () if page is None else page.item_fields
        self.item_fields = sorted({*self.looks.items, *named, *of_pages})
