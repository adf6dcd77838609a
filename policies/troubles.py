"""The last failure of a source, as replicas tell it each other and whoever asks. Imports nothing heavy."""

import msgspec


class Trouble(msgspec.Struct, frozen=True):
    """What was last wrong with a source, and when, in seconds since the epoch."""

    reason: str
    at_s: float
