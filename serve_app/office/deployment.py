"""The Ray Serve deployment of the office: thin, as that of the replicas."""

import asyncio
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from bandits.errors import BanditloopError, StillWorkingError
from serve_app.api.statuses import error_bytes, status_of
from serve_app.api.wire import encode
from serve_app.console.site import console_site
from serve_app.host.json_logs import configure_logging
from serve_app.host.loopback import keep_replica_on_loopback
from serve_app.office.commands import PATIENCE_S, Answered, CommandRunner, program_of
from serve_app.office.environment import command_environment
from serve_app.office.errands import command_of, do_now
from serve_app.settings import Settings

NICENESS = 10
"""Whatever is done here yields to answering."""
THREADS = 4
"""Short errands that are done at a time."""

log = logging.getLogger("banditloop.office")


def _yield_to_others(niceness: int) -> None:
    """Have the kernel prefer other processes; on Linux each thread has a niceness of its own."""
    threads = Path("/proc/self/task")
    if not threads.exists():
        os.nice(niceness)
        return
    for thread in threads.iterdir():
        number = int(thread.name)
        own = os.getpriority(os.PRIO_PROCESS, number)
        os.setpriority(os.PRIO_PROCESS, number, min(19, own + niceness))


class Office:
    """Answers what takes long, and serves the console. Wrapped by ``serve.ingress`` in app.py."""

    def __init__(self, settings: Settings, api_url: str, forks: str | None = None) -> None:
        configure_logging(settings.log_level)
        keep_replica_on_loopback()
        _yield_to_others(NICENESS)
        self._settings, self._api_url = settings, api_url
        self._commands = CommandRunner(command_environment(settings), program=program_of(forks))
        self._threads = ThreadPoolExecutor(THREADS, "errand")

    async def do(self, errand: str, policy: str, asked: Mapping[str, Any]) -> Answered:
        """Do an errand; return the status and the body of the answer.

        Args:
            errand: what is to be done.
            policy: of which policy.
            asked: what the path and the query of the request say.
        """
        try:
            command = command_of(errand, policy, asked)
            if command is not None:
                return await self._commands.answer(command)

            work = partial(do_now, self._settings, errand, policy, asked)
            async with asyncio.timeout(PATIENCE_S):
                loop = asyncio.get_running_loop()
                return 200, encode(await loop.run_in_executor(self._threads, work))
        except TimeoutError:
            late = StillWorkingError(
                "looking through the log takes long: ask with the entry of the decision, as a list"
                " of decisions has it, or for what is newer",
                "entry",
            )
            return status_of(late), error_bytes(late)
        except BanditloopError as error:
            return status_of(error), error_bytes(error)
        except Exception as error:
            # The answer names no detail: the log has them.
            log.exception("an errand failed in a way that it should not")
            failure = BanditloopError(f"internal error ({type(error).__name__}): see the log")
            return 500, error_bytes(failure)

    async def __serve_build_asgi_app__(self) -> Any:
        """Return the application that serves the pages."""
        return console_site(self._api_url)

    async def __del__(self) -> None:
        """Stop; Serve awaits this after the last request was answered."""
        await self._commands.stop()
        self._threads.shutdown(wait=False)
