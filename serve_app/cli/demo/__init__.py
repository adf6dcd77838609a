"""``banditloop demo``: its options, the traffic over HTTP, the board and the report."""

from serve_app.cli.demo.command import app as app
