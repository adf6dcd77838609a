"""``banditloop worlds``: policies and estimators where the truth is known; frozen worlds."""

from serve_app.cli.worlds import frozen as frozen
from serve_app.cli.worlds.command import app as app
