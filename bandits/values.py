"""Feature values and ids, as requests, records and catalogues hold them, and their bounds.

This imports nothing.
"""

Value = float | str | bool | list[str]
FeatureMap = dict[str, Value]

MAX_EVENT_ID_BYTES = 256
MAX_NUMBER = 1e12
"""The largest reward or score: three of them multiplied still fit a 32-bit float."""
MAX_SIGNAL_BYTES = 64
MAX_TIME_MS = 253_402_300_799_999
MAX_PLACES = 1 << 16
"""Places of a page, placements included, are below it."""
MAX_FEATURE = 1e19
"""The largest feature: beyond every 64-bit integer, yet the product of two fits a 32-bit float."""
MAX_STRENGTH = 1000.0
"""The most interactions that one row of a prior is worth."""
