"""Feature hashing, identical to Vowpal Wabbit's: a hash means the same to VW and to numpy."""

from functools import lru_cache

import mmh3
import numpy as np
from numpy.typing import NDArray

PARTITION_SEED = 0x70617274
"""Not a seed of features, so that which partition an event is in says nothing of anything else."""


@lru_cache(maxsize=4096)
def hash_namespace(name: str) -> int:
    """Return the 32-bit hash of a namespace's name (murmur3, seed 0)."""
    return mmh3.hash(name.encode(), 0, signed=False)


@lru_cache(maxsize=1 << 18)
def hash_feature(namespace: str, name: str) -> int:
    """Return the 32-bit hash of a feature's name, seeded by its namespace.

    VW's text parser takes a name made of digits for an index, and such names collide; here it is
    hashed like any other.

    Args:
        namespace: the namespace's name.
        name: the feature's.
    """
    return mmh3.hash(name.encode(), hash_namespace(namespace), signed=False)


def partition_of(event_id: str, partitions: int) -> int:
    """Return which of a policy's partitions an event belongs to, in [0, partitions).

    Replicas, inboxes and learners all ask here, so a reward finds the log of its decision.

    Args:
        event_id: any text; it is hashed by murmur3.
        partitions: how many there are.
    """
    if partitions == 1:
        return 0
    hashed: int = mmh3.hash(event_id.encode(errors="surrogatepass"), PARTITION_SEED, signed=False)
    return hashed % partitions


def event_key(event_id: str) -> int:
    """Return 64 bits of murmur3 of an event's id. All slots of its decision share them."""
    key: int = mmh3.hash64(event_id.encode(errors="surrogatepass"), signed=False)[0]
    return key


UInt64 = NDArray[np.uint64]


def splitmix64(numbers: UInt64) -> UInt64:
    """Return 64 well-mixed bits per number (Steele et al. 2014, doi:10.1145/2660193.2660195)."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
