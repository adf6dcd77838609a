"""The last failure of a source, as replicas tell it each other and whoever asks.

Imports nothing heavy.
"""

import msgspec


class Trouble(msgspec.Struct, frozen=True):
    """The reason of a source's last failure, and its time in seconds since the epoch."""

    reason: str
    at_s: float
