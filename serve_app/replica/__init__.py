"""A replica: the deployment that answers, one policy in it, its counters."""
