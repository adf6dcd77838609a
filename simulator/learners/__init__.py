"""Policies that learn from a log outside the service."""
