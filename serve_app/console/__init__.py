"""The console: pages that people look at, drawn from the public HTTP API alone."""
