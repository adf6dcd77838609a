"""Worlds whose truth is known: what policies earn there, and how far estimates are from it."""
