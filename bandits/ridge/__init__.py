"""Bayesian ridge regression: the learner, the model that replicas score with, the merge."""
