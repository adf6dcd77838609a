"""A log of items in Redis: where whoever reads it begins, and what of it may go."""
