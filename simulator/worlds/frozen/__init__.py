"""Worlds whose parameters were fixed before anybody built what is judged in them."""
