"""Fitting the candidate sources. The only files that import torch and implicit (extra `train`)."""
