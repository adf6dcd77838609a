"""Feature hashing, identical to Vowpal Wabbit's, so that hashed features mean the same to VW and to numpy."""

from functools import lru_cache

import mmh3

PARTITION_SEED = 0x70617274
"""Other than of features: which partition an event is in says nothing of anything else."""


@lru_cache(maxsize=4096)
def hash_namespace(name: str) -> int:
    """32-bit hash of a namespace's name (murmur3, seed 0)."""
    return mmh3.hash(name.encode(), 0, signed=False)


@lru_cache(maxsize=1 << 18)
def hash_feature(namespace: str, name: str) -> int:
    """32-bit hash of a feature's name, seeded by its namespace.

    Unlike VW's text parser, a name made of digits is hashed like any other: integer names used as
    indexes collide.
    """
    return mmh3.hash(name.encode(), hash_namespace(namespace), signed=False)


def partition_of(event_id: str, partitions: int) -> int:
    """Which of a policy's partitions an event belongs to, in [0, partitions): by murmur3 of its id.

    Replicas, inboxes and learners all ask here, so a reward finds the log of its decision.
    """
    if partitions == 1:
        return 0
    hashed: int = mmh3.hash(event_id.encode(errors="surrogatepass"), PARTITION_SEED, signed=False)
    return hashed % partitions
