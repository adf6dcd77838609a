"""Compiled loops over actions and over features."""
