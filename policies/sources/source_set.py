"""The sources of a policy as one artifact has them: what is swapped when another is to serve."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from policies.artifacts.profiles import Profiles
from policies.items.offering import Offering
from policies.sources.base import (
    CandidateSource,
    ComparingSource,
    ContextScorer,
    OfferingFollower,
    Source,
    VectorReader,
)


@dataclass(frozen=True, slots=True)
class SourceSet:
    """All sources of a policy, and what is known of users.

    ``proposing`` are asked for candidates, ``scorers`` look at what is to be chosen from.
    ``profiles`` name places in the order of items of the artifact whose version is ``artifact``.
    """

    proposing: tuple[CandidateSource, ...]
    scorers: tuple[ContextScorer, ...] = ()
    profiles: Profiles | None = None
    artifact: str | None = None

    @classmethod
    def of(
        cls,
        sources: Sequence[Source],
        profiles: Profiles | None = None,
        artifact: str | None = None,
    ) -> Self:
        """Return the set of some sources.

        Args:
            sources: in the order in which they are asked.
            profiles: what is known of users.
            artifact: the version that sources and profiles are of.
        """
        proposing = tuple(each for each in sources if not isinstance(each, ContextScorer))
        scorers = tuple(each for each in sources if isinstance(each, ContextScorer))
        return cls(proposing, scorers, profiles, artifact)

    @property
    def all(self) -> tuple[Source, ...]:
        """All of them; those that propose stand first."""
        return (*self.proposing, *self.scorers)

    @property
    def followers(self) -> tuple[OfferingFollower, ...]:
        """Those that keep to what may be offered by themselves."""
        return tuple(each for each in self.proposing if isinstance(each, OfferingFollower))

    @property
    def comparing(self) -> dict[str, ComparingSource]:
        """Those that can say which items are like another, by name."""
        return {each.name: each for each in self.proposing if isinstance(each, ComparingSource)}

    def vector_lengths(self, but: Collection[str] | None) -> Mapping[str, int]:
        """Return how long vectors of items are, by name, where the sources compare items by them.

        Args:
            but: items that do not count, since they are about to be others; None: no item does.

        Returns:
            A length by name, 0 where no item that counts has a vector. Where two sources were made
            for two lengths, either may come, and the name is left out.
        """
        said: dict[str, set[int]] = {}
        for source in self.proposing:
            if isinstance(source, VectorReader):
                for name, length in source.vector_lengths(but).items():
                    said.setdefault(name, set()).add(length)
        return {name: max(lengths) for name, lengths in said.items() if len(lengths - {0}) < 2}

    def over(self, offering: Offering) -> Self:
        """Return the same sources over what may be offered."""
        proposing = tuple(
            each.over(offering) if isinstance(each, OfferingFollower) else each
            for each in self.proposing
        )
        return replace(self, proposing=proposing)
