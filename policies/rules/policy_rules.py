"""All rules of a policy, compiled: what a decision is made under, whoever asks."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from policies.rules.boosts import Boost, Boosts
from policies.rules.columns import CODES, ItemColumns
from policies.rules.conditions import Looks
from policies.rules.filters import Filter, FilterRule
from policies.rules.kinds import SAID, Kind
from policies.rules.pages.page import Page
from policies.rules.placements import Placement, Placements
from policies.rules.quotas.compiled import Quotas
from policies.rules.quotas.quota import Exposure, Quota
from policies.typed_yaml import nearest


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

    def troubles(
        self, columns: ItemColumns, names: Callable[[], Collection[str]]
    ) -> dict[str, str]:
        """Return by field of the spec what its rule asks of items and none of them can answer.

        Args:
            columns: the features of the items.
            names: gives the names of features that items have, of which the nearest is suggested.
        """
        found: dict[str, list[str]] = {}
        for field, needs in self._needs():
            for said in unanswered(needs, columns, names):
                found.setdefault(field, []).append(said)
        return {field: "; ".join(each) for field, each in found.items()}

    @property
    def needs_features(self) -> bool:
        """Whether any rule needs a feature of items."""
        return any(next(iter(needs), None) is not None for _, needs in self._needs())

    def _needs(self) -> Iterator[tuple[str, Iterable[tuple[str, Kind | None]]]]:
        """Yield the features of items that rules need, by the rule's field in the spec."""
        for field, looks in self.looks_by_field.items():
            yield field, looks.needs
        if self.page is not None:
            yield "page", [(name, None) for name in self.page.item_fields]
        if self.filter_rule is not None:
            yield "filter.fields", [(name, None) for name in self.filter_rule.fields]


def unanswered(
    needs: Iterable[tuple[str, Kind | None]],
    columns: ItemColumns,
    names: Callable[[], Collection[str]],
) -> Iterator[str]:
    """Yield what is asked of items and none of them can answer; nothing, if there are no items.

    Args:
        needs: features, each with the kind that it has to be of; None: any.
        columns: the features of the items.
        names: gives the names of features that items have.
    """
    if not columns.place:
        return
    for name, kind in sorted(needs, key=lambda need: need[0]):
        counts = columns.columns[name].counts
        kinds = [each for each, code in CODES.items() if counts[code]]
        if not kinds:
            near = nearest(name, [*names()]).rstrip()
            yield f"no item has item.{name}" + (f": {near}" if near else "")
        elif kind is not None and kind not in kinds:
            said = " or a ".join(SAID[each] for each in kinds)
            yield (
                f"item.{name} is a {said} wherever an item has it, and a {SAID[kind]} has to stand"
                " there"
            )
