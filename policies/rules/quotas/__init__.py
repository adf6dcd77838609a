"""Quotas: shares of what is shown that a group of items has at least, or at most."""
