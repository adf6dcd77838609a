"""Rows of an evaluation that sources are compared with, and that nothing serves."""
