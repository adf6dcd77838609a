"""Vowpal Wabbit: the learner, its scores in numpy, its own logs, the merge. No other room imports it."""
