"""Off-policy evaluation: what another policy would have earned, and whether that number can be trusted."""
