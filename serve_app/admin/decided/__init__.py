"""Decisions of a stored policy, looked at one by one: found, listed, and joined with what came."""
