"""The features of items or users, as a network is trained on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from bandits.types import Float32, UInt32
from bandits.values import FeatureMap
from policies.encoding import code_pairs, hash_pairs
from policies.sources.towers.hashed import on_scale

SEEN_TWICE = 2
"""Whose feature it is alone, of that it tells nothing that others could share."""


@dataclass(frozen=True, slots=True, eq=False)
class CodedFeatures:
    """Features of n items or users: the code of each, padded, and its value on its scale.

    ``hashes`` uint32[u], ascending, and ``scales`` float32[u, 2], as ``FeatureRows`` has them;
    ``codes`` int64[n, f] into them; ``values`` float32[n, f], 0 where there is none.
    """

    hashes: UInt32
    scales: Float32
    codes: Tensor
    values: Tensor

    @classmethod
    def of(
        cls, features: Mapping[str, FeatureMap], ids: Sequence[str], namespace: str, most: int
    ) -> Self:
        """Return the features of some ids.

        Args:
            features: by id; who has none is not there.
            ids: in their order.
            namespace: which names are hashed with.
            most: different features that are kept, the most frequent.
        """
        pairs = [hash_pairs(features.get(each, {}), namespace) for each in ids]
        seen: dict[int, int] = {}
        codes, values = code_pairs(pairs, seen)
        filled = np.arange(codes.shape[1]) < np.array([len(row) for row in pairs])[:, None]

        # Which features are kept, ascending by their hash.
        known = np.array(list(seen), np.uint32)
        counts = np.bincount(codes[filled], minlength=known.size)
        often = np.flatnonzero(counts >= SEEN_TWICE)
        often = often[np.lexsort((known[often], -counts[often]))][:most]
        often = often[np.argsort(known[often])]
        place = np.full(max(known.size, 1), -1)
        place[often] = np.arange(often.size)
        codes = place[codes]
        filled &= codes >= 0
        codes[~filled] = 0

        scales = _scales(codes[filled], values[filled], often.size)
        values = np.where(filled, on_scale(values, scales[codes]) if often.size else 0, 0)
        return cls(
            known[often], scales, torch.from_numpy(codes), torch.from_numpy(values.astype("f4"))
        )

    @property
    def known(self) -> Tensor:
        """Which of the n have any feature, bool[n]."""
        return (self.values != 0).any(1)

    def sums(self, rows: Tensor, of: Tensor) -> Tensor:
        """Return the sums of rows, float32[m, d].

        Args:
            rows: float32[u, d], one for each feature.
            of: int64[m], for which of the n.
        """
        return (rows[self.codes[of]] * self.values[of][:, :, None]).sum(1)


def _scales(codes: "np.ndarray", values: Float32, count: int) -> Float32:
    """Return mean and deviation of each feature, float32[count, 2]; 0 and 1 of an indicator."""
    numbers = np.maximum(np.bincount(codes, minlength=count), 1)
    mean = np.bincount(codes, values.astype(np.float64), count) / numbers
    spread = np.bincount(codes, (values - mean[codes]) ** 2, count) / numbers
    deviation = np.sqrt(spread)
    is_constant = deviation <= 1e-6 * np.abs(mean)
    scales = np.stack(
        [np.where(is_constant, 0.0, mean), np.where(is_constant, 1.0, deviation)], axis=1
    )
    return scales.astype(np.float32)
