"""The owner of a data folder reaches the service that runs on it, and nobody else does."""

import threading
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client

import msgspec
import pytest

from bandits.errors import StartupError
from serve_app.host.door import FILE, call, open_door


def test_what_is_asked_is_answered_in_order_until_the_last(tmp_path):
    with open_door(tmp_path) as door:

        def serve() -> None:
            for _ in range(2):
                came = door.next(30.0)
                for word in (b"a ", b"", b"b "):
                    came.answer(word + came.asked)
                came.close()

        thread = threading.Thread(target=serve)
        thread.start()
        for asked in (b"first", b"x" * 100_000):
            assert list(call(tmp_path, asked)) == [b"a " + asked, asked, b"b " + asked]
        thread.join()
    assert not (tmp_path / FILE).exists()


def test_a_caller_without_the_key_is_let_go_and_the_next_one_is_served(tmp_path):
    with open_door(tmp_path) as door:
        assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
        port = msgspec.json.decode((tmp_path / FILE).read_bytes())["port"]
        with pytest.raises(AuthenticationError):
            Client(("127.0.0.1", port), authkey=b"guessed")
        answers = call(tmp_path, b"hello")
        thread = threading.Thread(target=lambda: door.next(30.0).close())
        thread.start()
        assert list(answers) == []
        thread.join()
        assert door.next(0.0) is None


@pytest.mark.parametrize("left", [None, b"{}", b'{"port": 1, "key": "00", "pid": 1}'])
def test_where_no_service_runs_one_line_says_so(tmp_path, left):
    if left is not None:
        (tmp_path / FILE).write_bytes(left)
    with pytest.raises(StartupError, match="no service runs"):
        next(call(tmp_path, b""))
