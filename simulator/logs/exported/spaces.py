"""Which namespaces exported logs have, of the context and of actions: here there is one of each.

A policy that crosses namespaces names them by their first letters. Here these are ``c``, and ``f``
and ``i`` of actions, so it crosses what stands in their place.
"""

from collections.abc import Mapping, Sequence
from itertools import islice

import msgspec

from bandits.errors import BadRowError
from bandits.features.namespaces import CONTEXT, FEATURES, ITEM
from bandits.log.codec import MALFORMED
from policies.personalizer.nearest import argument_words, read_options
from simulator.logs.dsjson import dsjson_pieces
from simulator.logs.exported.personalizer import IDS
from simulator.logs.files import LogFile
from simulator.logs.text_records import records
from simulator.logs.vw_features import read_json_features

FIRST = 1000
"""Lines that are looked at, of each file."""
_CROSSING = ("quadratic", "cubic", "interactions")


def letters_here(files: Sequence[LogFile]) -> dict[str, str]:
    """Return the letter here of each namespace's letter there; one of both kinds has none.

    Args:
        files: exported logs, dsjson.

    Raises:
        ReplayError: a file cannot be read.
    """
    found: dict[str, set[str]] = {}
    for file in files:
        pieces = dsjson_pieces(file)
        for record in islice((record for piece in pieces for record in records(piece.span)), FIRST):
            for letter, here in _letters(record.lines[0]):
                found.setdefault(letter, set()).add(here)
    return {letter: "".join(here) for letter, here in found.items() if len(here) == 1}


def _letters(line: bytes) -> set[tuple[str, str]]:
    """Return the first letters of a line's namespaces, and what they are here."""
    try:
        raw = msgspec.json.decode(line, type=dict[str, msgspec.Raw]).get("c")
        context, actions, _ = read_json_features(bytes(raw or b""), "line")
    except (*MALFORMED, BadRowError):
        return set()

    found: set[tuple[str, str]] = set()
    for features, here in ((context, CONTEXT), *((each, FEATURES) for each in actions)):
        for name in features:
            # The innermost object that it is in is its namespace.
            path = name.split(".")[:-1]
            if path and path[-1]:
                is_id = here == FEATURES and name.startswith(IDS)
                found.add((path[-1][0], ITEM[0] if is_id else here[0]))
    return found


def crossed_here(arguments: str, letters: Mapping[str, str]) -> str:
    """Return a policy's arguments that cross here what stands for what they cross there.

    Args:
        arguments: of a policy.
        letters: see ``letters_here``; what is not among them stays as it is.
    """
    said, seen = list[str](), set[tuple[str, str]]()
    for name, value in read_options(arguments.split()):
        crossed = value
        if name in _CROSSING and value is not None:
            crossed = "".join(letters.get(letter, letter) for letter in value)
            pair = name, "".join(sorted(crossed))
            if pair in seen:
                continue
            seen.add(pair)
        said += argument_words(name, crossed)
    return " ".join(said)
