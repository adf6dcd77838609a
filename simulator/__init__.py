"""Data sets, worlds, the in-process loop, audits: everything offline."""
