"""Features of items and users as a scorer is fitted on them: their vocabulary, and its rows."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float32
from bandits.values import FeatureMap
from policies.encoding import coded_rows, hash_pairs
from policies.sources.scorers.vocabulary import FeatureVocabulary

MOST_FIELDS: Final = 24
"""Names that have a field of their own; the rarer ones share one."""
MOST_FEATURES: Final = 100_000
"""Features that are told apart, the most frequent ones."""


@dataclass(frozen=True, slots=True, eq=False)
class EncodedFeatures:
    """The features of some rows: ``codes``, int64[rows, F], and ``counts``, float32[rows, F].

    A count of 0 is padding, whatever its code.
    """

    vocabulary: FeatureVocabulary
    codes: NDArray[np.int64]
    counts: Float32


def encode_features(maps: Sequence[FeatureMap], namespace: str) -> EncodedFeatures:
    """Return the features of some rows with the vocabulary that they make.

    Args:
        maps: of each row.
        namespace: which names are hashed with.
    """
    hashes, places, values = coded_rows(maps, namespace)
    used = np.bincount(places.ravel(), (values != 0).ravel(), len(hashes)).astype(np.int64)
    kept = np.flatnonzero(used)
    kept = np.sort(kept[np.argsort(-used[kept], kind="stable")][:MOST_FEATURES])
    kept = kept[np.argsort(hashes[kept])]

    # A number's usual size is the root of its mean square; what is there or not has size 1.
    squares = np.bincount(places.ravel(), values.ravel().astype(np.float64) ** 2, len(hashes))
    usual = np.sqrt(np.divide(squares, used, out=np.ones(len(hashes)), where=used > 0))
    field_of, fields = _fields(maps, namespace)
    if not kept.size:
        nothing = FeatureVocabulary(hashes[:0], np.zeros(0, np.int32), np.zeros(0, np.float32), 0)
        shape = (len(maps), 0)
        return EncodedFeatures(nothing, np.zeros(shape, np.int64), np.zeros(shape, np.float32))
    vocabulary = FeatureVocabulary(
        hashes[kept],
        np.array([field_of[hashed] for hashed in hashes[kept].tolist()], np.int32),
        (1.0 / np.maximum(usual[kept], 1e-30)).astype(np.float32),
        fields,
    )
    codes = vocabulary.codes(hashes)[places]
    counts = vocabulary.pooled(codes, values)
    return EncodedFeatures(vocabulary, np.maximum(codes, 0).astype(np.int64), counts)


def _fields(maps: Sequence[FeatureMap], namespace: str) -> tuple[dict[int, int], int]:
    """Return the field of each feature by its hash, and how many fields there are."""
    names = Counter(name for row in maps for name in row)
    common = sorted(names, key=lambda name: (-names[name], name))[:MOST_FIELDS]
    field = {name: number for number, name in enumerate(sorted(common))}
    found: dict[int, int] = {}
    for name, value in _distinct(maps):
        for hashed, _ in hash_pairs({name: value}, namespace):
            found[hashed] = field.get(name, len(field))
    return found, len(field) + (len(names) > len(field))


def _distinct(maps: Sequence[FeatureMap]) -> Iterator[tuple[str, str | float]]:
    """Yield each name with each of its texts once, and each other name once."""
    seen: set[tuple[str, str | float]] = set()
    for row in maps:
        for name, value in row.items():
            texts: Sequence[str | float]
            if isinstance(value, str):
                texts = (value,)
            else:
                texts = value if isinstance(value, list) else (1.0,)
            for text in texts:
                if (name, text) not in seen:
                    seen.add((name, text))
                    yield name, text


def arrays_of(vocabulary: FeatureVocabulary, name: str) -> Mapping[str, NDArray[np.generic]]:
    """Return what an artifact holds of a vocabulary.

    Args:
        vocabulary: it.
        name: that the arrays' names begin with.
    """
    widths = np.bincount(vocabulary.field, minlength=vocabulary.fields).astype(np.int32)
    return {
        f"{name}_hashes": vocabulary.hashes,
        f"{name}_fields": vocabulary.field,
        f"{name}_scales": vocabulary.scale,
        f"{name}_widths": widths,
    }
