"""From a pool to a decision and its record: what is chosen, by which policy, with what chance."""
