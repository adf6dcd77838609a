"""The data in Redis, and how it is read and written."""
