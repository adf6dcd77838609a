"""``banditloop refresh``: train a policy's sources anew on its log, and serve them if no worse."""

from serve_app.cli.refresh.command import app as app
