"""The only forms in which a user id enters the log, a store, or files that say something of users.

A policy without profiles logs keyed pseudonyms: whoever has the salt and an id can find its entries
for ever. One with profiles logs random ones, which only a person's record links to an id.
"""

import hashlib
import os

from bandits.errors import InvalidUserIdError

MAX_USER_ID_BYTES = 256


def pseudonym(salt: bytes, user_id: str) -> str:
    """Return a keyed pseudonym, 32 hex digits.

    Args:
        salt: the key, 1 to 64 secret bytes; another one gives every user another pseudonym.
        user_id: as the caller sent it.
    """
    return hashlib.blake2b(user_id.encode(), key=salt, person=b"user", digest_size=16).hexdigest()


def random_pseudonym() -> str:
    """Return a pseudonym that says nothing of anybody, 32 hex digits."""
    return os.urandom(16).hex()


def person_key(salt: bytes, user_id: str) -> str:
    """Return what finds a person's record, 32 hex digits; no log has it.

    Args:
        salt: the key, as of ``pseudonym``.
        user_id: as the caller sent it.
    """
    return hashlib.blake2b(user_id.encode(), key=salt, person=b"person", digest_size=16).hexdigest()


def salt_id(salt: bytes) -> str:
    """Return what tells whether two salts are the same, 16 hex digits: not how to find one."""
    return hashlib.blake2b(key=salt, person=b"salt", digest_size=8).hexdigest()


def check_user_id(user_id: str, target: str = "user_id") -> str:
    """Return a user's id if it may be one; refuse it otherwise.

    Args:
        user_id: as the caller sent it.
        target: the field, which the error names.

    Raises:
        InvalidUserIdError: it is empty, has more than 256 bytes, or is no text of Unicode.
    """
    try:
        size = len(user_id.encode())
    except UnicodeEncodeError:
        raise InvalidUserIdError("a user_id is text of Unicode", target) from None
    if not 0 < size <= MAX_USER_ID_BYTES:
        raise InvalidUserIdError(f"a user_id has 1 to {MAX_USER_ID_BYTES} bytes", target)
    return user_id
