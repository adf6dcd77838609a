"""What a replica answers while the office is not there: at the start it waits, later it says so."""

from types import SimpleNamespace

import pytest

from bandits.errors import OfficeGoneError
from serve_app.office.door import OfficeDoor


class Serve:
    """Serve as it is asked for an office that it knows from the ``begins``-th try on."""

    def __init__(self, begins: int) -> None:
        self.tries, self._begins = 0, begins

    def connect(self) -> SimpleNamespace:
        self.tries += 1
        if self.tries < self._begins:
            raise KeyError("Deployment(name='office', app='console') does not exist.")

        async def done(errand: str, *_: object) -> tuple[int, bytes]:
            return 200, errand.encode()

        return SimpleNamespace(do=SimpleNamespace(remote=done))


async def test_whoever_asks_at_the_start_of_a_service_waits_for_its_office():
    """Serve raises a KeyError for what is not deployed yet; a handle is made once."""
    serve = Serve(begins=3)
    door = OfficeDoor(serve.connect)
    for _ in range(2):
        assert (await door.answer("decisions", "home", {}))[:2] == (200, b"decisions")
    assert serve.tries == 3


async def test_an_office_that_serve_does_not_know_is_asked_for_again():
    serve = Serve(begins=3)
    door = OfficeDoor(serve.connect, starting_s=0.0)
    for _ in range(2):
        with pytest.raises(OfficeGoneError, match="not there yet"):
            await door.answer("decisions", "home", {})
    assert (await door.answer("decisions", "home", {}))[0] == 200


async def test_a_service_without_ray_has_no_office():
    with pytest.raises(OfficeGoneError, match="does not answer"):
        await OfficeDoor().answer("decisions", "home", {})
