"""What of a log is in the archive, and what then may go from Redis."""
