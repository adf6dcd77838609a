"""Scorers of an artifact: they see the request's context and propose nothing. Without torch."""
