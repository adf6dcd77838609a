"""What a replica answers while the office is not there: that it is not, and to ask again."""

import pytest

from bandits.errors import OfficeGoneError
from serve_app.office.door import OfficeDoor


async def test_an_office_that_serve_does_not_know_yet_is_asked_for_again():
    """As in the first seconds of a service: Serve raises a KeyError for what is not deployed."""
    tries = 0

    def connect():
        nonlocal tries
        tries += 1
        raise KeyError("Deployment(name='office', app='console') does not exist.")

    door = OfficeDoor(connect)
    for _ in range(2):
        with pytest.raises(OfficeGoneError, match="not there yet"):
            await door.answer("decisions", "home", {})
    assert tries == 2


async def test_a_service_without_ray_has_no_office():
    with pytest.raises(OfficeGoneError, match="does not answer"):
        await OfficeDoor().answer("decisions", "home", {})
