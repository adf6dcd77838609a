"""``banditloop migrate``: from another service's configuration and logs to a policy of this one."""

from serve_app.cli.migrate import personalizer as personalizer
from serve_app.cli.migrate.command import app as app
