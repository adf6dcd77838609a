"""Scorers of the pool, fitted by torch."""
