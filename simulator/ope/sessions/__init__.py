"""Off-policy evaluation of whole sessions."""
