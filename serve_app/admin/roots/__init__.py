"""Roots of logs: where a log begins, and which of its archive's files are before that."""
