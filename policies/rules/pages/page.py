"""What a spec says of pages: how diverse they are, and how many items of one kind they hold."""

from typing import Annotated

import msgspec

from bandits.page import MOST_ADDED

Most = Annotated[int, msgspec.Meta(ge=1)]
FieldName = Annotated[str, msgspec.Meta(min_length=1)]
MostByField = Annotated[dict[FieldName, Most], msgspec.Meta(min_length=1)]


class Diversity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much an item loses by being like one that stands on the page already.

    Maximal marginal relevance (Carbonell & Goldstein 1998, equation 1, whose lambda is 1 / (1 +
    weight)): ``weight`` times the greatest similarity is taken from its score.

    Attributes:
        by: the feature of the items by which they are compared: the share of its texts that two
            have in common; or whether they have the same one.
        weight: what is taken from an item that is just like another, in units of the reward.
        vector: whether they are compared by one of their ``vectors`` instead, whose name ``by`` is:
            by the cosine of the angle.
    """

    by: FieldName
    weight: Annotated[float, msgspec.Meta(gt=0, le=MOST_ADDED)]
    vector: bool = False


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may stand beside what on a page, slot by slot, and what of it is preferred.

    Attributes:
        diversity: what an item loses by being like another on the page; not of what the holdout is
            served.
        most: by feature, how many items with the same value a page holds at most.
        in_a_row: by feature, how many items with the same value stand side by side at most.
    """

    diversity: Diversity | msgspec.UnsetType = msgspec.UNSET
    most: MostByField | msgspec.UnsetType = msgspec.UNSET
    in_a_row: MostByField | msgspec.UnsetType = msgspec.UNSET

    @property
    def limits(self) -> list[tuple[str, str, int]]:
        """The limits: ``most`` or ``in_a_row``, the feature, and how many."""
        return [
            (kind, name, most)
            for kind, limits in (("most", self.most), ("in_a_row", self.in_a_row))
            if limits is not msgspec.UNSET
            for name, most in limits.items()
        ]

    @property
    def item_fields(self) -> frozenset[str]:
        """The features of items that it looks at."""
        names = {name for _, name, _ in self.limits}
        if self.diversity is not msgspec.UNSET and not self.diversity.vector:
            names.add(self.diversity.by)
        return frozenset(names)

    @property
    def vector(self) -> str | None:
        """Which of the items' vectors it looks at; None: at none."""
        if self.diversity is msgspec.UNSET or not self.diversity.vector:
            return None
        return self.diversity.by
