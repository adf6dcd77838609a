"""Reading ahead: the same things in the same order, whatever goes wrong, and no more than one ahead."""

from collections.abc import Iterator

import pytest

from simulator.logs.archive.read_ahead import read_ahead


def test_all_is_yielded_in_order_and_an_error_comes_in_its_place():
    def source() -> Iterator[int]:
        yield from range(5)
        raise ValueError("broken")

    assert list(read_ahead(iter(range(5)))) == [0, 1, 2, 3, 4]
    found = []
    with pytest.raises(ValueError, match="broken"):
        found.extend(read_ahead(source()))
    assert found == [0, 1, 2, 3, 4]


def test_one_is_made_ahead_and_no_more():
    """Also for whoever stops asking: what was read ahead is all that was."""
    made = []

    def source() -> Iterator[int]:
        for number in range(9):
            made.append(number)
            yield number

    seen = read_ahead(source())
    assert next(seen) == 0
    seen.close()
    assert made == [0, 1]
