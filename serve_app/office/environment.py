"""What a command of the office is told of the service: where its log and its salt are."""

import os

from serve_app.settings import Settings


def command_environment(settings: Settings) -> dict[str, str]:
    """Return the environment in which a command finds the service that these settings are of.

    Secrets stand in it, and in no argument: every user of a machine can read a command line.
    """
    named = {
        "BANDITLOOP_REDIS_URL": settings.redis_url,
        "BANDITLOOP_DATA_DIR": str(settings.data_dir),
        "BANDITLOOP_ARCHIVE": settings.archive,
        "BANDITLOOP_SALT": None if settings.salt is None else settings.salt.get_secret_value(),
        "BANDITLOOP_REDIS_TIMEOUT_S": str(settings.redis_timeout_s),
    }
    # Ray's own variables would have a command believe that it is one of Ray's workers.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return inherited | {name: value for name, value in named.items() if value is not None}
