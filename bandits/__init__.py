"""The science: records, PMFs, exploration, posteriors, the join.

No I/O, no clock, no Ray, no Redis.
"""
