"""The work of commands on a stored policy, and the checks before a start."""
