"""Vowpal Wabbit: the learner, its scores in numpy, its own logs, the merge. The one room that imports it."""
