"""The process that follows logs as shadows: a thread for each shadow of each policy."""
