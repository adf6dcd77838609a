"""The log of what users of a space do: how it is appended to, moved into, read and led."""
