"""The last failure of a source, as replicas tell it to each other and to whoever asks.

This imports nothing heavy.
"""

import msgspec


class Trouble(msgspec.Struct, frozen=True):
    """Why a source failed last, and when, in seconds since the epoch."""

    reason: str
    at_s: float
