"""Training spread over processes and machines."""
