"""What entries of logs name by digest, as Redis keeps it."""
