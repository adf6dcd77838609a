"""The command ``banditloop report``."""

from serve_app.cli.report.command import app as app
