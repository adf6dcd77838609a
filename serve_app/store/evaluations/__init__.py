"""Evaluations that clients of Personalizer have asked for."""
