"""An item as one vector, made of its texts and of the vectors that it brings."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from bandits.errors import ArtifactError, InvalidFieldError
from bandits.types import Float32
from policies.artifacts.source_artifact import TrainedSource
from policies.requests import Item
from policies.sources.live.encoders import load_encoder
from policies.sources.live.products import direction_of
from policies.sources.live.text_vectors import TextVectors, WordVectors, text_of, unit

WORDS = "words"
"""The encoder of texts that training fits; any other is of a package."""


@dataclass(frozen=True, slots=True, eq=False)
class ItemEncoder:
    """Makes an item's vector: each part scaled to length 1, side by side, and the whole likewise.

    So the cosine of two items is the mean of their parts' cosines. A part that an item lacks is
    zeros. Where training has fitted a ``mean``, float32[parts], it is subtracted; where it has
    fitted a ``projection``, float32[parts, size], the rest is projected; and the length is 1 again.

    ``text``: names of its metadata and features, which are one text together; ``encoder``
    makes a vector of it. ``vectors``: the length of each of its own vectors that counts, by name.
    """

    text: tuple[str, ...] = ()
    encoder: TextVectors | None = None
    vectors: Mapping[str, int] | None = None
    mean: Float32 | None = None
    projection: Float32 | None = None

    @property
    def size(self) -> int:
        """Numbers of an item's vector."""
        return self.parts_size if self.projection is None else int(self.projection.shape[1])

    @property
    def parts_size(self) -> int:
        """Numbers of all parts together."""
        return (self.encoder.size if self.encoder else 0) + sum((self.vectors or {}).values())

    def of(self, item: Item) -> Float32 | None:
        """Return the vector of an item, float32[size] of length 1; None if nothing is said of it.

        Raises:
            InvalidFieldError: a vector of it has another length, or a number that is not finite.
        """
        whole = self.parts_of(item)
        return None if whole is None else self._fitted(whole)

    def _fitted(self, whole: Float32) -> Float32 | None:
        """Return what training makes of an item's parts; None if that is nothing."""
        if self.mean is None:
            return whole
        whole = whole - self.mean
        whole = unit(whole if self.projection is None else whole @ self.projection)
        return whole if whole.any() else None

    def of_each(self, items: Sequence[Item | None]) -> list[Float32 | InvalidFieldError | None]:
        """Return the vector of each item, byte for byte as ``of`` does, in a fifth of the time.

        Args:
            items: some; None of one that is gone.

        Returns:
            What ``of`` returns of each, or raises; None of one that is gone.
        """
        found: list[Float32 | InvalidFieldError | None] = [None] * len(items)
        asked = [(at, item) for at, item in enumerate(items) if item is not None]
        if not asked or not self.parts_size:
            return found

        parts = []
        if self.encoder is not None:
            parts.append(
                np.stack([self.encoder.vector(text_of(item, self.text)) for _, item in asked])
            )
        good = np.ones(len(asked), np.bool_)
        for name, size in (self.vectors or {}).items():
            given = [None if item.vectors is UNSET else item.vectors.get(name) for _, item in asked]
            scaled, are_good = _scaled_each(given, size)
            parts.append(scaled)
            good &= are_good

        whole = unit(np.concatenate(parts, axis=1))
        for (at, item), row, is_good in zip(asked, whole, good.tolist(), strict=True):
            if not is_good:
                try:
                    self.of(item)
                except InvalidFieldError as error:
                    found[at] = error
            elif row.any():
                found[at] = self._fitted(row)
        return found

    def parts_of(self, item: Item) -> Float32 | None:
        """Return the parts alone, float32[parts] of length 1; None if nothing is said of it.

        Raises:
            InvalidFieldError: as ``of``.
        """
        if not self.parts_size:
            return None
        parts = []
        if self.encoder is not None:
            parts.append(self.encoder.vector(text_of(item, self.text)))
        given = {} if item.vectors is UNSET else item.vectors
        parts += [
            np.zeros(size, np.float32) if name not in given else _checked(given[name], name, size)
            for name, size in (self.vectors or {}).items()
        ]

        whole = unit(np.concatenate(parts))
        return whole if whole.any() else None

    def sized(self, items: Iterable[Item | None]) -> Self:
        """Return the same for vectors as long as most items' are; 0 while none has one.

        Args:
            items: all of them.
        """
        sizes: dict[str, Counter[int]] = {name: Counter() for name in self.vectors or {}}
        for item in items:
            given = {} if item is None or item.vectors is UNSET else item.vectors
            for name in sizes.keys() & given.keys():
                sizes[name][len(given[name])] += 1
        return replace(self, vectors=usual_sizes(sizes))

    @classmethod
    def load(cls, source: TrainedSource) -> Self:
        """Return what training has fitted.

        Raises:
            ArtifactError: arrays are missing or do not fit; the encoder's package is not installed.
        """
        text, vectors = source.config.get("text", ()), source.config.get("vectors", {})
        encoder: TextVectors | None = None
        if text and source.config.get("encoder") == WORDS:
            hashes = source.array("hashes", None)
            encoder = WordVectors(hashes, source.array("rows", len(hashes), None))
        elif text:
            encoder = load_encoder(str(source.config.get("encoder")))
        if encoder is None and not vectors:
            raise ArtifactError("a source of kind content compares texts, vectors or both", "text")

        made = cls(tuple(text), encoder, dict(vectors))
        if "mean" in source.arrays:
            made = replace(made, mean=source.array("mean", made.parts_size))
        if "projection" in source.arrays:
            made = replace(made, projection=source.array("projection", made.parts_size, None))
        return made


def _checked(numbers: Sequence[float], name: str, size: int) -> Float32:
    if len(numbers) != size:
        raise InvalidFieldError(
            f"vectors.{name} has {len(numbers)} numbers, those of the others {size}",
            f"vectors.{name}",
        )
    with np.errstate(over="ignore"):
        vector = np.array(numbers, np.float64).astype(np.float32)
    if not np.isfinite(vector).all():
        raise InvalidFieldError(
            f"vectors.{name} has a number that is not a finite float32", f"vectors.{name}"
        )
    # Before its length is taken, since squares of large numbers are larger still.
    largest = np.abs(vector).max(initial=0)
    return unit(vector / largest) if largest > 0 else vector


def _scaled_each(
    given: Sequence[Sequence[float] | None], size: int
) -> tuple[Float32, NDArray[np.bool_]]:
    """Return vectors as ``_checked`` does, float32[n, size], and which are such, bool[n].

    Args:
        given: each item's numbers; None of one that has none, which are zeros.
        size: how many there are to be.
    """
    scaled: Float32 = np.zeros((len(given), size), np.float32)
    good = np.array([each is None or len(each) == size for each in given], np.bool_)
    places = [at for at, each in enumerate(given) if each is not None and len(each) == size]
    if not places:
        return scaled, good

    with np.errstate(over="ignore", invalid="ignore"):
        rows = np.array([given[at] for at in places], np.float64).astype(np.float32)
        finite = np.isfinite(rows).all(axis=1)
        good[places] = finite
        largest = np.abs(rows).max(axis=1, initial=0)
        there = finite & (largest > 0)
        scaled[np.array(places)[there]] = unit(rows[there] / largest[there, None])
    return scaled, good


def usual_sizes(sizes: Mapping[str, Counter[int]]) -> dict[str, int]:
    """Return the length that most vectors of each name have, the shortest of several; 0 if none."""
    return {
        name: min(counts.items(), key=lambda each: (-each[1], each[0]), default=(0, 0))[0]
        for name, counts in sizes.items()
    }


def steps_of(source: TrainedSource) -> Float32 | None:
    """Return what a source's fine-tuning makes of the last items, float32[steps, size, size].

    Returns:
        None if it was not fine-tuned.

    Raises:
        ArtifactError: it has another shape than its vectors.
    """
    if "steps" not in source.arrays:
        return None
    size = source.array("vectors", None, None).shape[1]
    return source.array("steps", None, size, size)


def taken_next(rows: Float32, weights: Float32, steps: Float32) -> Float32:
    """Return what a user takes next is like, float32[size]: the mean, and what the last items add.

    Args:
        rows: float32[h, size], the vectors of the history's items, oldest first.
        weights: float32[h], how strongly each speaks for its item.
        steps: float32[steps, size, size], by which the last item is multiplied, the one before, …
    """
    return direction_of(rows, weights, steps)


class ContentModel:
    """The cosine of each item with what the history is like on average: item vectors of length 1.

    Where fine-tuning has found what the last items say of the next one, it is the product with
    ``taken_next``. An item that nothing is said of has zeros, and is never proposed; nor is one
    that is unlike the history.
    """

    needs_history = True
    floor = 0.0

    def __init__(self, vectors: Float32, steps: Float32 | None = None) -> None:
        self._vectors = vectors
        self._steps = steps

    @classmethod
    def load(cls, source: TrainedSource, n_items: int) -> Self:
        """Return the model that a trained source holds.

        Args:
            source: its ``vectors``, float32[n_items, d], and ``steps``, if it was fine-tuned.
            n_items: how many items the artifact has.

        Raises:
            ArtifactError: ``vectors`` is missing, or has another shape.
        """
        return cls(source.array("vectors", n_items, None), steps_of(source))

    def raw(self, indices: NDArray[Any], weights: Float32) -> Float32:
        """Return the cosine of every item, float32[items].

        Args:
            indices: places of the history's items, int[h], oldest first as far as it is known.
            weights: float32[h], how strongly each speaks for its item.
        """
        rows = self._vectors[indices]
        if self._steps is None:
            scores: Float32 = self._vectors @ unit(weights @ rows)
            return scores
        said = rows.any(axis=1)
        wanted = taken_next(rows[said], weights[said], self._steps)
        return np.asarray(self._vectors @ wanted, np.float32)
