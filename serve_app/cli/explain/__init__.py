"""``banditloop explain``: why a decision of the log is as it is."""

from serve_app.cli.explain.command import app

__all__ = ["app"]
