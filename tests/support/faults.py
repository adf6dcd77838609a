"""Faults at a chosen moment: the n-th call of a real client or folder kills, waits or fails."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import redis
from pyarrow import fs
from redis.exceptions import ConnectionError as RedisConnectionError


class KilledError(Exception):
    """The process ends here."""


class Calls:
    """Counts calls; does something at the n-th, before its effect or after it."""

    def __init__(self, at: int, then: Callable[[], None], *, after: bool = False) -> None:
        self.left, self._then, self._after = at, then, after

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.left -= 1
        now = self.left == 0
        if now and not self._after:
            self._then()
        result = function(*args, **kwargs)
        if now and self._after:
            self._then()
        return result


def kill() -> None:
    raise KilledError


class CountingClient:
    """A real Redis client whose calls are counted."""

    def __init__(self, client: redis.Redis, calls: Calls) -> None:
        self._client, self._calls = client, calls

    def __getattr__(self, name: str) -> Any:
        return partial(self._calls, getattr(self._client, name))


class CountingSink:
    """A file being written, whose writes and closing are counted."""

    closed = False

    def __init__(self, sink: Any, calls: Calls) -> None:
        self._sink, self._calls = sink, calls

    def write(self, data: bytes) -> int:
        return self._calls(self._sink.write, data)

    def flush(self) -> None:
        self._sink.flush()

    def close(self) -> None:
        self.closed = True
        self._calls(self._sink.close)


class CountingFolder(fs.FSSpecHandler):
    """A real folder whose calls are counted."""

    def __init__(self, root: Path, calls: Calls) -> None:
        super().__init__(fs.SubTreeFileSystem(str(root), fs.LocalFileSystem()))
        self._calls = calls

    def get_type_name(self) -> str:
        return "counting"

    def get_file_info(self, paths: list[str]) -> Any:
        return self._calls(self.fs.get_file_info, paths)

    def get_file_info_selector(self, selector: Any) -> Any:
        return self._calls(self.fs.get_file_info, selector)

    def create_dir(self, path: str, recursive: bool) -> None:
        self._calls(self.fs.create_dir, path, recursive=recursive)

    def move(self, src: str, dest: str) -> None:
        self._calls(self.fs.move, src, dest)

    def delete_file(self, path: str) -> None:
        self._calls(self.fs.delete_file, path)

    def open_input_file(self, path: str) -> Any:
        return self._calls(self.fs.open_input_file, path)

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        return pa.PythonFile(
            CountingSink(self._calls(self.fs.open_output_stream, path), self._calls), mode="w"
        )


class DroppingClient:
    """A client that loses its connection every n-th call."""

    def __init__(self, client: redis.Redis, every: int) -> None:
        self._client, self._every, self._count = client, every, 0

    def __getattr__(self, name: str) -> Any:
        self._count += 1
        if self._count % self._every == 0:
            raise redis.ConnectionError
        return getattr(self._client, name)


class FaultyRedis(redis.Redis):
    """A client that loses its connection at one call.

    The ``fail_at``-th raises, and with ``after`` only once the server has done it.
    """

    fail_at: int | None = None
    after = False
    calls = 0

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        failing = self.calls == self.fail_at
        if failing and not self.after:
            raise RedisConnectionError("injected before")
        answer = super().execute_command(*args, **options)
        if failing:
            raise RedisConnectionError("injected after")
        return answer
