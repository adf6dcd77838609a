"""Feature hashing, identical to Vowpal Wabbit's, so that hashed features mean the same to VW and to numpy."""

from functools import lru_cache

import mmh3


@lru_cache(maxsize=4096)
def hash_namespace(name: str) -> int:
    """32-bit hash of a namespace's name (murmur3, seed 0)."""
    return mmh3.hash(name.encode(), 0, signed=False)


@lru_cache(maxsize=1 << 18)
def hash_feature(namespace: str, name: str) -> int:
    """32-bit hash of a feature's name, seeded by its namespace.

    Unlike VW's text parser, a name made of digits is hashed like any other: integer names used as indexes collide.
    """
    return mmh3.hash(name.encode(), hash_namespace(namespace), signed=False)
