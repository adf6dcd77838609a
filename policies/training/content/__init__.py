"""Fitting what makes vectors of items: their texts, their vectors, and what tastes make of them."""
