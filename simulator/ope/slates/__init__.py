"""Evaluation of pages: what another policy would have earned with all slots of a decision."""
