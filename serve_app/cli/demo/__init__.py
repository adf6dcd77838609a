"""``banditloop demo``: its options, the traffic over HTTP, what is shown meanwhile, and the report."""

from serve_app.cli.demo.command import app as app
