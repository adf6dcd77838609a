"""``banditloop replay``: its options, the evaluation, and the tables of its report."""

from serve_app.cli.replay.command import app as app
