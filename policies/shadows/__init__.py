"""Shadows: other policies over the same log, of which nobody is served."""
