"""Core types. All are frozen, all arrays read-only; K is the number of actions of one decision."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.errors import InvalidPmfError, RefusedError
from bandits.kernels.actions import SLACK, total_and_least
from bandits.log.versions import FOLD

Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]
UInt32 = NDArray[np.uint32]
Pmf = Float64


def frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Make an array read-only, in place, and return it."""
    array.setflags(write=False)
    return array


class Namespace(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The features of one namespace, shared by all actions or one row per action.

    ``values``: float32, shape [n] in a Context or a Row, [K, n] in an ActionSet. A value of 0 means
    "no such feature" (padding). ``hashes``: uint32, the features' names: [n], the same for every
    row; or [K, n]; or, with ``codes``, [U], the distinct names, of which ``codes``, integers [K,
    n], says which each value is of. A hash is Vowpal Wabbit's own: murmur3 of the feature's name,
    seeded with the hash of the namespace's name.
    """

    name: str
    hashes: UInt32
    values: Float32
    codes: NDArray[np.integer[Any]] | None = None

    def cells(self) -> UInt32:
        """Return the hash of each value: [n] or [K, n]."""
        return self.hashes if self.codes is None else self.hashes[self.codes]

    def take(self, rows: NDArray[np.intp]) -> "Namespace":
        """Return the features of some actions, in this order."""
        if self.codes is not None:
            return Namespace(self.name, self.hashes, self.values[rows], self.codes[rows])
        return Namespace(
            self.name,
            self.hashes if self.hashes.ndim == 1 else self.hashes[rows],
            self.values[rows],
        )

    def row(self, index: int) -> "Namespace":
        """Return the features of one action, [n], copied so as not to keep those of all."""
        values = self.values[index].copy()
        if self.codes is not None:
            return Namespace(self.name, self.hashes[self.codes[index]], values)
        return Namespace(
            self.name, self.hashes if self.hashes.ndim == 1 else self.hashes[index].copy(), values
        )


Row = Sequence[Namespace]
"""Features of one action or of a context, each namespace [n]."""


class Context(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Features shared by all actions of one decision."""

    namespaces: tuple[Namespace, ...] = ()


class ActionSet(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The K actions of one decision, with their features. Says nothing of which one was chosen.

    ``scores``: by source, float32[K], NaN where the source did not propose the action. ``boosts``:
    float64[K], what rules add to the model's score of each before exploration; None: nothing.
    """

    ids: tuple[str, ...]
    namespaces: tuple[Namespace, ...] = ()
    scores: Mapping[str, Float32] = msgspec.field(default_factory=dict)
    boosts: Float64 | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def row(self, index: int) -> Row:
        """Return the features of one action."""
        return [namespace.row(index) for namespace in self.namespaces]

    def take(self, indices: Sequence[int] | NDArray[np.intp]) -> "ActionSet":
        """Return the actions at ``indices``, in that order."""
        rows = np.asarray(indices, dtype=np.intp)
        return ActionSet(
            ids=tuple(self.ids[i] for i in rows),
            namespaces=tuple(ns.take(rows) for ns in self.namespaces),
            scores={source: values[rows] for source, values in self.scores.items()},
            boosts=None if self.boosts is None else self.boosts[rows],
        )

    def boosted(self, scores: NDArray[Any]) -> NDArray[Any]:
        """Return a model's scores of the actions, [K] or [K, M], with what rules add to each."""
        if self.boosts is None:
            return scores
        added = self.boosts.astype(scores.dtype)
        sums: NDArray[Any] = scores + (added if scores.ndim == 1 else added[:, None])
        return sums


@dataclass(frozen=True, slots=True, eq=False)
class Interaction:
    """A decision joined with its reward: what a learner learns from.

    ``chosen`` indexes ``actions``; ``propensity`` is its probability when it was chosen, in (0, 1];
    higher rewards are better. ``time_ms``: when it was decided, in milliseconds of the log's clock.
    """

    event_id: str
    slot: int
    context: Context
    actions: ActionSet
    chosen: int
    propensity: float
    reward: float
    time_ms: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A model as replicas score with it: small, safe to load (no pickle).

    ``kind`` names the model family that reads ``payload`` (msgpack); ``position`` is the id of the
    last log entry it has seen ("0-0" at the start); ``learned`` counts the interactions in it.
    ``fold``: the version of the fold that made it, by which PMFs follow from it (see versions.py).
    ``trends``: what the items' rewards have come to, where a source of the spec asks for it.
    """

    kind: str
    position: str
    learned: int
    payload: bytes
    fold: int = FOLD
    trends: bytes | None = None


Explore = Callable[[Context, ActionSet], Pmf]
"""From a decision's features to a PMF, as ``Policy.pmf``."""


class Policy(Protocol):
    """Maps a decision's features to a PMF. Pure: the same arguments give the same bytes."""

    def pmf(self, context: Context, actions: ActionSet) -> Pmf:
        """Return float64[K]: non-negative, its sum 1 within 1e-12, and never changed afterwards.

        Args:
            context: what the actions share.
            actions: K of them.
        """
        ...


class ChosenRow(msgspec.Struct, frozen=True, eq=False, gc=False):
    """An interaction for a learner that needs the chosen action alone.

    ``shared``: the context's features; ``own``: the action's. ``available``: how many actions there
    were to choose from; ``propensity``: the probability of this one; ``time_ms``: when it was
    chosen; ``slot``: where on the page it stood.
    """

    action_id: str
    shared: Row
    own: Row
    reward: float
    available: int = 1
    propensity: float = 1.0
    time_ms: int = 0
    slot: int = 0

    @classmethod
    def of(cls, interaction: Interaction) -> "ChosenRow":
        """Return the chosen action of an interaction."""
        actions, chosen = interaction.actions, interaction.chosen
        return cls(
            actions.ids[chosen],
            interaction.context.namespaces,
            actions.row(chosen),
            interaction.reward,
            len(actions),
            interaction.propensity,
            interaction.time_ms,
            interaction.slot,
        )


class ChosenRows(msgspec.Struct, frozen=True, eq=False, gc=False):
    """R interactions as columns, for a learner that needs the chosen actions alone.

    ``action_ids``: distinct ids; ``actions``: int64[R], which of them was chosen. ``spaces``: the
    names of S namespaces, one or more, the first ``shared`` of which are the context's. The
    features of row r in namespace s are those from ``bounds[r * S + s]`` up to ``bounds[r * S + s +
    1]`` in ``hashes``, uint32[n], and ``values``, float32[n], where 0 means "no such feature".
    ``rewards``, ``propensities``: float64[R]; ``available``: int64[R], how many actions there were.
    ``learns``: bool[R], False where a row that was learned has its reward changed by ``rewards``;
    None if all are new. ``times_ms``: int64[R], when each was chosen; None if the learner is not
    ``timed``. ``slots``: int64[R], where on the page each stood; None if all stood first.
    """

    action_ids: Sequence[str]
    actions: NDArray[np.int64]
    spaces: tuple[str, ...]
    shared: int
    bounds: NDArray[np.int64]
    hashes: UInt32
    values: Float32
    rewards: Float64
    available: NDArray[np.int64]
    propensities: Float64
    learns: NDArray[np.bool_] | None = None
    times_ms: NDArray[np.int64] | None = None
    slots: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.actions)

    def __iter__(self) -> Iterator[ChosenRow]:
        """Yield one row after the other."""
        actions, bounds = self.actions.tolist(), self.bounds.tolist()
        rewards, propensities = self.rewards.tolist(), self.propensities.tolist()
        times_ms = [0] * len(self) if self.times_ms is None else self.times_ms.tolist()
        slots = [0] * len(self) if self.slots is None else self.slots.tolist()

        for row, available in enumerate(self.available.tolist()):
            features: list[Namespace] = []
            for space, name in enumerate(self.spaces):
                at = row * len(self.spaces) + space
                cells = slice(bounds[at], bounds[at + 1])
                features.append(Namespace(name, self.hashes[cells], self.values[cells]))
            yield ChosenRow(
                self.action_ids[actions[row]],
                features[: self.shared],
                features[self.shared :],
                rewards[row],
                available,
                propensities[row],
                times_ms[row],
                slots[row],
            )

    def part(self, start: int, end: int) -> "ChosenRows":
        """Return the rows from ``start`` up to ``end``."""
        width, rows = len(self.spaces), slice(start, end)
        bounds = self.bounds[start * width : min(end, len(self)) * width + 1]
        cells = slice(int(bounds[0]), int(bounds[-1]))
        return ChosenRows(
            self.action_ids,
            self.actions[rows],
            self.spaces,
            self.shared,
            bounds - bounds[0],
            self.hashes[cells],
            self.values[cells],
            self.rewards[rows],
            self.available[rows],
            self.propensities[rows],
            None if self.learns is None else self.learns[rows],
            None if self.times_ms is None else self.times_ms[rows],
            None if self.slots is None else self.slots[rows],
        )


class DecisionRows(msgspec.Struct, frozen=True, eq=False, gc=False):
    """R interactions as columns, for a learner that needs all actions.

    ``contexts``: R rows, of which the context, the reward and the propensity count. ``actions``: D
    rows, of which what is not the context's counts. Interaction r is among the actions ``codes``,
    int64[n], from ``offsets[r]`` up to ``offsets[r + 1]``, each once, and ``chosen``, int64[R], is
    the index of one of them.
    """

    contexts: ChosenRows
    actions: ChosenRows
    codes: NDArray[np.int64]
    offsets: NDArray[np.int64]
    chosen: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.chosen)


class Learner(Protocol):
    """A policy's model as it learns. Any split of the interactions into calls gives the same bytes.

    ``by_row``: it learns from the chosen action alone, so it can be taught by ``learn_row``, or by
    ``learn_rows``, which spares making the features of the others. ``takes_decisions``: it can be
    taught all actions as columns, by ``learn_decisions``. ``timed``: what it learns counts by its
    age, so every lesson has to say its time. ``slotted``: it counts by where on its page an action
    stood, so every lesson has to say that. ``weighs``: what it learns depends on the propensity of
    what was chosen. ``learned``: how many interactions it has learned; a prior counts for as many
    as its weight.
    """

    by_row: bool = False
    takes_decisions: bool = False
    timed: bool = False
    slotted: bool = False
    weighs: bool = True
    learned: int = 0

    @property
    def columns(self) -> tuple[int, int]:
        """How many columns of features there are, and may be; (0, 0) without any."""
        return 0, 0

    def learn(self, interactions: Sequence[Interaction]) -> None:
        """Learn from interactions, in order."""
        ...

    def learn_row(self, row: ChosenRow) -> None:  # noqa: ARG002
        """Learn from the chosen action of one interaction; only where ``by_row``."""
        name = type(self).__name__
        raise NotImplementedError(f"{name} does not learn from the chosen action alone")

    def learn_rows(self, rows: ChosenRows) -> None:
        """Learn what ``learn_row`` does of each row, in order; only where ``by_row``.

        Where the config ``corrects``, some may be what ``correct_row`` takes.
        """
        assert rows.learns is None  # noqa: S101 - who corrects has a method of its own
        for row in rows:
            self.learn_row(row)

    def learn_decisions(self, rows: DecisionRows) -> None:  # noqa: ARG002
        """Learn what ``learn`` does, in order; only where it ``takes_decisions``."""
        name = type(self).__name__
        raise NotImplementedError(f"{name} does not learn from columns of all actions")

    def learn_prior(
        self,
        lessons: Iterable[ChosenRows | Interaction],  # noqa: ARG002
        weight: float,  # noqa: ARG002
        time_ms: int = 0,  # noqa: ARG002
    ) -> int:
        """Learn what comes before the first interaction; only where the config ``learns``.

        Args:
            lessons: columns where ``by_row``, or interactions, in order.
            weight: how many interactions each lesson is worth.
            time_ms: when, in log time; where the learner is ``timed`` their age counts from here.

        Returns:
            How many lessons there were.

        Raises:
            RefusedError: this kind of learner has no way to.
        """
        raise RefusedError(f"{type(self).__name__} learns from no rows of a prior", "learner.kind")

    def correct_row(self, row: ChosenRow) -> None:  # noqa: ARG002
        """Change a learned row's reward by ``row.reward``; only where the config ``corrects``."""
        name = type(self).__name__
        raise NotImplementedError(f"{name} does not correct what it has learned")

    def snapshot(self, position: str) -> Snapshot:
        """Return what replicas score with, as of the log entry ``position``."""
        ...

    def checkpoint(self) -> bytes:
        """Return what a learner resumes from."""
        ...


def check_pmf(pmf: Pmf) -> Pmf:
    """Refuse anything that is not a PMF.

    Raises:
        InvalidPmfError: not float64, not finite, negative, or its sum is further than 1e-12 from 1.
    """
    if pmf.dtype != np.float64 or pmf.ndim != 1 or pmf.size == 0:
        raise InvalidPmfError(
            f"a PMF is a non-empty float64 vector, not {pmf.dtype}{list(pmf.shape)}", "pmf"
        )
    check_mass(pmf)
    return pmf


def check_mass(pmf: Pmf) -> None:
    """Refuse a non-empty float64 vector that is not a PMF; see ``check_pmf``."""
    total, least = total_and_least(pmf)
    if not abs(total - 1.0) <= SLACK:  # also catches NaN
        raise InvalidPmfError(f"a PMF sums to 1 within 1e-12, not to {total!r}", "pmf")
    if least < 0.0:
        raise InvalidPmfError("a PMF has no negative entries", "pmf")
