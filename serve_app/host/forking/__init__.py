"""Ray's processes as forks of one that has imported already what they will."""
