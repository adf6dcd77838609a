"""Erasing persons: what is destroyed, what every log is told, and how far that has come."""
