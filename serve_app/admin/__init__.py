"""What commands ask of a stored policy and do to it, and what is checked before a start."""
