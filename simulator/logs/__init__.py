"""Readers: any log of decisions, as batches of rows."""
