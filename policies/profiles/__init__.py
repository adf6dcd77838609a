"""What the logs say of one user, bounded: how it is folded, joined, and used."""
