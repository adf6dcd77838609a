"""Blends of sources: what each source in one is worth, and what it costs."""
