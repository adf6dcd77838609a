"""``banditloop preview``: what a running service would choose, and why."""

from serve_app.cli.preview.command import app

__all__ = ["app"]
