"""The only form in which a user id enters the log, and files that say something of users."""

import hashlib


def pseudonym(salt: bytes, user_id: str) -> str:
    """Return a keyed pseudonym, 32 hex digits.

    Args:
        salt: the key, 1 to 64 secret bytes; another one gives every user another pseudonym.
        user_id: as the caller sent it.
    """
    return hashlib.blake2b(user_id.encode(), key=salt, person=b"user", digest_size=16).hexdigest()


def salt_id(salt: bytes) -> str:
    """Return what tells whether two salts are the same, 16 hex digits: not how to find one."""
    return hashlib.blake2b(key=salt, person=b"salt", digest_size=8).hexdigest()
