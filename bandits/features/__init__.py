"""Features: their hashes, and a decision's features as arrays that compiled loops read."""
