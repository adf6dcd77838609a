"""Logs that other services have exported, as they would be logged here."""
