"""Fitting networks that meet a user's history with an item: two towers, and NCF."""
