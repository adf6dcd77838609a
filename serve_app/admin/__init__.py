"""What commands ask of a stored policy and do to it."""
