"""Learning as a fold over the log: of one partition, of all, from a checkpoint, and verified."""
