"""Refreshing sources: train on the log, compare the blend with what serves, keep what is no worse.

``course.py`` is the course of it. What the log says of users is read by ``rewarded.py``; training
runs in a process of its own (``trainer.py``); the comparison is on the newest decisions of the log
(``log_comparison.py``) and on what users did since (``user_comparison.py``).
"""
