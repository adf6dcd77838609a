"""Off-policy evaluation: what another policy would have earned, and how far that can be trusted."""
