"""``banditloop train``: candidate sources, a policy on a log, or a policy of whole sessions."""

from serve_app.cli.train import policies as policies
from serve_app.cli.train.command import app as app
