"""The group ``banditloop migrate``."""

from serve_app.cli.options import command_group

app = command_group("Make a policy of what another service has exported.")
