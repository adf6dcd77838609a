"""The report of a policy: what it earned, whether it is worth it, and how sure that is."""
