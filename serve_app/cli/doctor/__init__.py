"""``banditloop doctor``: its options, the examination, and the report for a person."""

from serve_app.cli.doctor.command import app as app
