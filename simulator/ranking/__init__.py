"""Evaluation of candidate sources on a data set: what each would have recommended, and how well."""
