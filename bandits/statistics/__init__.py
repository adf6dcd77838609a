"""Statistics: moments that merge, intervals, tests by betting."""
