"""The office in a test's process: its commands run there, each once."""

from collections.abc import Mapping

import msgspec
from typer.testing import CliRunner

from bandits.errors import BanditloopError
from serve_app.api.statuses import error_bytes, status_of
from serve_app.api.wire import JSON, Answer, encode
from serve_app.cli.main import app
from serve_app.office.errands import command_of, do_now
from serve_app.settings import Settings


class LocalOffice:
    """Does errands as the office does, but waits for them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._said: dict[tuple[str, ...], bytes] = {}

    async def answer(self, errand: str, policy: str, asked: Mapping[str, str | int]) -> Answer:
        try:
            command = command_of(errand, policy, asked)
            if command is None:
                return 200, encode(do_now(self._settings, errand, policy, asked)), JSON
            return 200, self._printed(command), JSON
        except BanditloopError as error:
            return status_of(error), error_bytes(error), JSON

    def _printed(self, command: tuple[str, ...]) -> bytes:
        if command not in self._said:
            where = ["--redis-url", str(self._settings.redis_url)]
            where += ["--data-dir", str(self._settings.data_dir)]
            name, *rest = command
            done = CliRunner().invoke(app, [name, *where, *rest])
            if isinstance(done.exception, BanditloopError):
                raise done.exception
            assert done.stdout, done.exception
            self._said[command] = encode(msgspec.json.decode(done.stdout))
        return self._said[command]
