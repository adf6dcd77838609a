"""``banditloop evaluate``: how well candidate sources rank, on the later part of a data set."""

from serve_app.cli.evaluate.command import app

__all__ = ["app"]
