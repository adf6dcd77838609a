"""How a replica hands over what takes long."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from bandits.errors import OfficeGoneError
from serve_app.api.wire import JSON, Answer
from serve_app.office.names import OFFICE, OFFICE_APP

PATIENCE_S = 30.0
"""How long a replica waits for the office, which itself says after less that it is still at it."""
STARTING_S = 30.0
"""For so long after a replica's start its office may be on its way: whoever asks waits for it."""
POLL_S = 0.2


class OfficeDoor:
    """Hands errands to the office, by a handle of Serve that is made when first used.

    A service whose console nobody looks at pays nothing for it.
    """

    def __init__(
        self, connect: Callable[[], Any] | None = None, *, starting_s: float = STARTING_S
    ) -> None:
        """Connect to nobody yet.

        Args:
            connect: returns a handle, or raises what Serve does; None: asks Serve for one.
            starting_s: for how long from now on there may be no office yet, in seconds.
        """
        self._connect = connect or _handle
        self._started_by = time.monotonic() + starting_s
        self._handle: Any = None

    async def answer(self, errand: str, policy: str, asked: Mapping[str, str | int]) -> Answer:
        """Have the office answer.

        Args:
            errand: what is to be done.
            policy: of which policy.
            asked: what the path and the query say.

        Raises:
            OfficeGoneError: it does not answer now.
        """
        from ray.exceptions import RayError  # noqa: PLC0415 - only where Ray runs
        from ray.serve.exceptions import RayServeException  # noqa: PLC0415 - likewise

        try:
            async with asyncio.timeout(PATIENCE_S):
                if self._handle is None:
                    self._handle = await self._connected()
                status, body = await self._handle.do.remote(errand, policy, dict(asked))
        except KeyError as error:
            # Serve knows of none: as on a cluster that has none.
            raise OfficeGoneError(
                "the console's process is not there yet: ask again in some seconds", "console"
            ) from error
        except (RayError, RayServeException, TimeoutError) as error:
            raise OfficeGoneError(
                f"the console's process does not answer ({type(error).__name__}): it is started"
                " again by itself; ask again in some seconds",
                "console",
            ) from error
        return status, body, JSON

    async def _connected(self) -> Any:
        """Return a handle; at the start of a service, when there is an office to have one of.

        Raises:
            KeyError: Serve knows of none.
        """
        while True:
            try:
                return await asyncio.to_thread(self._connect)
            except KeyError:
                if time.monotonic() >= self._started_by:
                    raise
            await asyncio.sleep(POLL_S)


def _handle() -> Any:
    import ray  # noqa: PLC0415 - only where Ray runs
    from ray import serve  # noqa: PLC0415 - likewise
    from ray.serve.exceptions import RayServeException  # noqa: PLC0415 - likewise

    # Asked for a handle, Serve would start a Ray of its own.
    if not ray.is_initialized():
        raise RayServeException("no Ray runs here")
    return serve.get_deployment_handle(OFFICE, OFFICE_APP)
