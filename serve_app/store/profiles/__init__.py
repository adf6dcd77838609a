"""Profiles of users in Redis: their parts, written by the leaders of logs, and made anew."""
