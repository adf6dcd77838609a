"""The doctor: checks that a log can be trusted."""
