"""What may stand in a request, in a record and in a catalogue: features, ids, and their bounds. Imports nothing."""

Value = float | str | bool | list[str]
FeatureMap = dict[str, Value]

MAX_EVENT_ID_BYTES = 256
MAX_NUMBER = 1e12
"""Of rewards and scores: three of them multiplied still fit a 32-bit float."""
MAX_FEATURE = 1e19
"""Of features: beyond every 64-bit integer, and two of them multiplied still fit a 32-bit float."""
