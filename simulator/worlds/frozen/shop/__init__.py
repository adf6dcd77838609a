"""The shop: its items, its visits, and what recommendations earn there."""
