"""Metrics of ranked lists, of what is in them, and what users can tell of a difference."""
