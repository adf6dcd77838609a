"""What the sources of a policy answer, each of them and together, and what is wrong with it."""

import logging
import time
from collections import Counter
from collections.abc import Mapping
from itertools import chain, islice, zip_longest

import numpy as np

from banditloop_client.schemas import Trouble
from bandits.errors import SourceError
from bandits.kernels.actions import all_within
from bandits.types import Float32
from bandits.values import MAX_NUMBER
from policies.candidate_pool import Pool
from policies.requests import MAX_ACTIONS
from policies.sources.base import Candidates, CandidateSource, ImmediateSource, SourceRequest
from policies.spec import PolicySpec

MORE = 4
"""Times as many candidates are asked for where the filters leave too few, or a quota may."""
MAX_REASON = 200
"""Characters that are kept of a source's failure."""
WARN_EVERY_S = 30.0
"""The process's log tells at most this often what is wrong with a source."""

log = logging.getLogger("banditloop.sources")


class SourceAnswers:
    """The answers of a policy's sources.

    By source, ``failures`` counts the decisions that it fell out of, ``partial`` those for which
    only a part of its answer could be used, and ``troubles`` keeps what was last wrong.
    """

    def __init__(self, spec: PolicySpec) -> None:
        self.failures: Counter[str] = Counter()
        self.partial: Counter[str] = Counter()
        self.troubles: dict[str, Trouble] = {}
        self._spec = spec
        self._warned_at: dict[str, float] = {}

    async def ask(
        self, source: CandidateSource, request: SourceRequest, wanted: int | None = None
    ) -> tuple[str, Candidates | str]:
        """Return the source's name with what it proposes, or why it failed.

        Args:
            source: is asked.
            request: what it may look at.
            wanted: how many candidates; None: as many as the spec says.
        """
        try:
            candidates = await self._candidates(source, request, wanted or self._spec.limit)
        except SourceError as error:
            return source.name, self.failed(source.name, error)

        if candidates.trouble:
            self.partial[source.name] += 1
            self._keep_trouble(source.name, candidates.trouble)
        return source.name, candidates

    async def _candidates(
        self, source: CandidateSource, request: SourceRequest, wanted: int
    ) -> Candidates:
        """Return what a source proposes of what the filters admit, as much as they let it.

        Raises:
            SourceError: it has no answer.
        """
        limit = wanted
        while True:
            if isinstance(source, ImmediateSource):
                found = source.propose(request, limit)
            else:
                found = await source.candidates(request, limit)
            check_scores(found.scores)
            if request.admission is None or not found.ids or found.admitted:
                return found

            # Where the filters take much, more is asked for; not of what has to be waited for.
            kept = await request.admission.sift(found.ids)
            last = len(found.ids) < limit or not isinstance(source, ImmediateSource)
            if len(kept) >= wanted or last:
                return found.at(kept[:wanted].tolist())
            limit *= MORE

    def failed(self, name: str, error: SourceError) -> str:
        """Count a failure; return why, shortened.

        Args:
            name: the source's.
            error: what it raised.
        """
        self.failures[name] += 1
        return self._keep_trouble(name, error.message)

    def _keep_trouble(self, name: str, reason: str) -> str:
        """Keep what is wrong with a source, warn of it now and then, and return it shortened."""
        now_s, reason = time.time(), reason[:MAX_REASON]
        self.troubles[name] = Trouble(reason, now_s)

        if abs(now_s - self._warned_at.get(name, 0.0)) >= WARN_EVERY_S:
            self._warned_at[name] = now_s
            log.warning(
                "policy %s: %s (%d failures, %d answers used in part)",
                self._spec.name,
                reason,
                self.failures[name],
                self.partial[name],
            )
        return reason

    def union(self, answers: Mapping[str, Candidates], artifact: str | None) -> Pool:
        """Return what several sources propose together.

        Args:
            answers: by source.
            artifact: the version of the artifact that they are of.
        """
        ids = tuple(dict.fromkeys(chain.from_iterable([each.ids for each in answers.values()])))
        if len(ids) > MAX_ACTIONS:
            ids = self._cut(answers)
        rows: dict[str, int] = {}
        scores: dict[str, Float32] = {}
        for name, candidates in answers.items():
            # In a blend a source also scores what others propose. In a mixture it stands only for
            # its own candidates.
            if candidates.score_items is not None and self._spec.kind != "mixture":
                scores[name] = candidates.score_items(ids)
                continue
            rows = rows or {item: row for row, item in enumerate(ids)}
            column = np.full(len(ids), np.nan, np.float32)
            for item, score in zip(candidates.ids, candidates.scores.tolist(), strict=True):
                if item in rows:
                    column[rows[item]] = score
            scores[name] = column
        return Pool(ids, None, scores, artifact=artifact)

    def _cut(self, answers: Mapping[str, Candidates]) -> tuple[str, ...]:
        """Return as many ids as a decision may have, from each source in turn, best first.

        What is left out is counted.
        """
        in_turn = chain.from_iterable(zip_longest(*(answer.ids for answer in answers.values())))
        ids = tuple(
            islice(dict.fromkeys(item for item in in_turn if item is not None), MAX_ACTIONS)
        )

        kept = set(ids)
        for name, answer in answers.items():
            if lost := sum(item not in kept for item in answer.ids):
                self.partial[name] += 1
                self._keep_trouble(
                    name,
                    f"{lost} of its candidates are beyond the {MAX_ACTIONS:,} actions of a"
                    " decision: lower limit",
                )
        return ids


def check_scores(scores: Float32, *, some: bool = False) -> None:
    """Refuse scores that are no numbers, or too large.

    Args:
        scores: float32[n].
        some: whether there may be NaN among them, of what has none.

    Raises:
        SourceError: one is.
    """
    if not all_within(np.ascontiguousarray(scores, np.float32), MAX_NUMBER, some):
        raise SourceError(f"a score is a number up to {MAX_NUMBER:g}", "scores")
