"""Vowpal Wabbit: the learner, its scores in numpy, its logs, the merge; only imported here."""
