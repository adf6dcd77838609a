"""How a replica hands over what takes long."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from bandits.errors import OfficeGoneError
from serve_app.api.wire import JSON, Answer
from serve_app.office.names import OFFICE, OFFICE_APP

PATIENCE_S = 30.0
"""How long a replica waits for the office, which itself says after less that it is still at it."""


class OfficeDoor:
    """Hands errands to the office, by a handle of Serve that is made when first used.

    A service whose console nobody looks at pays nothing for it.
    """

    def __init__(self, connect: Callable[[], Any] | None = None) -> None:
        """Connect to nobody yet.

        Args:
            connect: returns a handle, or raises what Serve does; None: asks Serve for one.
        """
        self._connect = connect or _handle
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
                    self._handle = await asyncio.to_thread(self._connect)
                status, body = await self._handle.do.remote(errand, policy, dict(asked))
        except KeyError as error:
            # Serve knows of none: in the first seconds of a service, or of a cluster without one.
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


def _handle() -> Any:
    import ray  # noqa: PLC0415 - only where Ray runs
    from ray import serve  # noqa: PLC0415 - likewise
    from ray.serve.exceptions import RayServeException  # noqa: PLC0415 - likewise

    # Asked for a handle, Serve would start a Ray of its own.
    if not ray.is_initialized():
        raise RayServeException("no Ray runs here")
    return serve.get_deployment_handle(OFFICE, OFFICE_APP)
