"""Worlds whose truth is known: what policies earn there, and how far estimators on their logs are from the truth."""
