"""Vowpal Wabbit's text format, as ``--cb_explore_adf`` reads it.

An example is a line per action, then an empty line.

Source: VW 9.9, ``core/parse_example.cc`` and ``core/cb.cc``, and the VW wiki's page "Input format".
A reward is minus a cost.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import msgspec

from bandits.errors import BadRowError
from bandits.values import FeatureMap, Value
from simulator.logs.files import LogFile
from simulator.logs.rows import LoggedDecision
from simulator.logs.text_records import (
    PIECE_BYTES,
    Parsed,
    RecordPiece,
    TextRecord,
    check_logged,
    cut_into_spans,
)
from simulator.logs.vw_features import FeatureCollector, combine

NO_LABEL = "examples without a label"
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_LABEL = re.compile(f"[0-9]+:{_NUMBER.pattern}:{_NUMBER.pattern}")
_ODD_NUMBER = re.compile(r"([+-]?0[xX][0-9a-fA-F]+)|([+-]?[0-9]+\.?[0-9]*)[eE]-?")
"""Matches the odd numbers that VW reads: hexadecimal ones, and exponents without digits."""
_STARTS_WITH_NUMBER = re.compile(f"{_NUMBER.pattern}|[+-]?(?:inf|nan)", re.IGNORECASE)
"""Matches a number with a rest, of which VW reads the number and drops the rest."""
_OTHER_PROBLEMS = {
    "ccb": "several slots (CCB)",
    "slates": "several slots (slates)",
    "ca": "continuous actions (CATS)",
}
_SHARED = "shared"
_BAR = b"|"


class TextLabel(msgspec.Struct, frozen=True, gc=False):
    """The label of an example.

    Attributes:
        chosen: Index of the labelled line among the actions, from 0.
        line: Its place in the record.
    """

    chosen: int
    line: int
    cost: float
    probability: float


@dataclass(frozen=True, slots=True)
class _Head:
    """The beginning of a line, before its features: ``shared``, a label, or neither; and a tag."""

    shared: bool
    label: tuple[float, float] | None
    tag: str


_NOTHING = _Head(shared=False, label=None, tag="")


def text_pieces(
    path: LogFile, *, piece_bytes: int = PIECE_BYTES, skip_bad: bool = False
) -> list[RecordPiece]:
    """Return the pieces of a log in VW's text format.

    Action ids are the lines' tags where every action of the example has one of its own, else "1" to
    "K" by place. The decision's id is its place in the file: nothing says that a shared line's tag
    is used once. The label says by where it stands which action was chosen, as for VW; its own
    action number is not used.

    A feature is named "namespace.name", without a namespace only "name", without a name by its
    place. Numbers are multiplied by their namespace's weight; under one name they add up, and texts
    are a list (see ``FeatureCollector``). Examples without a label are not decisions; they are
    counted.

    Args:
        path: The file.
        piece_bytes: Size of a piece, about.
        skip_bad: Whether bad rows are counted and left out, rather than an error.

    Raises:
        ReplayError: The file cannot be read.
    """
    return [
        RecordPiece(span, parse_text, skip_bad)
        for span in cut_into_spans(path, piece_bytes=piece_bytes, blocks=True)
    ]


def read_text_label(record: TextRecord) -> TextLabel | None:
    """Return the label alone, None if there is none; it takes a fraction of a row's time.

    Raises:
        BadRowError: It is no example with at most one label and a shared line before all others.
    """
    return _label(_heads(record), record)


def parse_text(record: TextRecord) -> Parsed:
    """Return one example as a row, of weight 1.

    Raises:
        BadRowError: The example is malformed.
    """
    places = dict(_heads(record))
    label = _label(places.items(), record)
    if label is None:
        return NO_LABEL

    heads = [places.get(place, _NOTHING) for place in range(len(record.lines))]
    features = [
        _features(_decoded(line, record, place), record, place)
        for place, line in enumerate(record.lines)
    ]

    shared = heads[0].shared
    tags = [head.tag for head in heads[shared:]]
    tagged = all(tags) and len(set(tags)) == len(tags)
    row = LoggedDecision(
        event_id=record.event_id,
        context=features[0] if shared else {},
        action_ids=tags if tagged else [str(k + 1) for k in range(len(tags))],
        chosen=label.chosen,
        propensity=label.probability,
        reward=-label.cost,
        features=features[shared:],
    )
    return check_logged(row, record.where(label.line)), 1.0


def _label(heads: Iterable[tuple[int, _Head]], record: TextRecord) -> TextLabel | None:
    """Return the example's label; ``heads`` are those of its lines that have one, with places."""
    label: TextLabel | None = None
    shared = False
    for place, head in heads:
        if head.shared:
            shared = True
            if place:
                raise BadRowError(
                    f"{record.where(place)}: the shared line is the first of an example", _SHARED
                )

        if head.label is not None:
            if label is not None:
                message = (
                    "an example has one label, this is its second (a log for --cb names no actions)"
                )
                raise BadRowError(f"{record.where(place)}: {message}", "label")
            label = TextLabel(place - shared, place, *head.label)
    return label


def _heads(record: TextRecord) -> Iterator[tuple[int, _Head]]:
    """Yield the heads of the lines that do not start with a bar, each with its place."""
    for place, line in enumerate(record.lines):
        if line[:1] != _BAR:
            try:
                yield place, _head(_decoded(line.partition(b"|")[0], record, place))
            except ValueError as error:
                raise BadRowError(f"{record.where(place)}: {error}", "label") from error


def _decoded(line: bytes, record: TextRecord, place: int) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise BadRowError(f"{record.where(place)}: not UTF-8: {error}", "line") from error


@lru_cache(maxsize=4096)
def _head(text: str) -> _Head:
    # VW drops what stands before a tab.
    unseen, tab, seen = text.partition("\t")
    if not tab:
        unseen, seen = "", text

    # A tag touches the bar, or has a quote before it.
    words, tag = seen.split(" "), ""
    touches = words[-1] != ""
    words = [word for word in words if word]
    if words and (touches or words[-1].startswith("'")):
        tag = words.pop()

    if any(word == _SHARED or _LABEL.fullmatch(word) for word in [tag, *unseen.split(" ")]):
        raise ValueError(
            f"{text!r} stands before the first bar without a space in between, so VW does not"
            " take it for a label"
        )

    tag = tag.removeprefix("'")
    if not words or words == [_SHARED]:
        return _Head(bool(words), None, tag)
    if words[0] in _OTHER_PROBLEMS:
        raise ValueError(f"a decision with {_OTHER_PROBLEMS[words[0]]} is not read here")
    if len(words) > 1 or not _LABEL.fullmatch(words[0]):
        raise ValueError(
            "before the first bar stand a label action:cost:probability, 'shared', or nothing,"
            f" and a tag; not {text!r}"
        )
    _, cost, probability = words[0].split(":")
    return _Head(False, (float(cost), float(probability)), tag)


def _features(text: str, record: TextRecord, place: int) -> FeatureMap:
    """Return the features of a line; ``place`` is its place in the record, for errors."""
    features = FeatureCollector()
    plain = features.plain
    for segment in _segments(text):
        # The first word is the namespace and its weight; it may be missing.
        words = segment.replace("\t", " ").split(" ")
        space, weight, anonymous = "", 1.0, 0
        if words[0]:
            space, colon, scale = words[0].partition(":")
            if not space or (colon and not _NUMBER.fullmatch(scale)):
                raise BadRowError(
                    f"{record.where(place)}: a namespace's weight is a number, not {scale!r}", space
                )
            weight = float(scale or 1.0)

        prefix = f"{space}." if space else ""
        for word in filter(None, words[1:]):
            name, colon, written = word.partition(":")
            if not name:
                name, anonymous = str(anonymous), anonymous + 1

            value: Value | None = weight
            if colon:
                plain_number = _NUMBER.fullmatch(written)
                value = float(written) * weight if plain_number else _unusual(written, weight)
            if value is None:
                message = f"a feature is name, name:number or name:text, not {word!r}"
                raise BadRowError(f"{record.where(place)}: {message}", name)

            if "." in name or "." in space:
                features.add_dotted([space, name] if space else [name], value)
            elif prefix + name in plain:
                combine(plain, prefix + name, value)
            else:
                plain[prefix + name] = value
    return features.done()


def _unusual(value: str, weight: float) -> Value | None:
    """Return a value that is no plain number as VW takes it; None if it cannot."""
    if odd := _ODD_NUMBER.fullmatch(value):
        return weight * (float.fromhex(odd[1]) if odd[1] else float(odd[2]))
    return value if value and not _STARTS_WITH_NUMBER.match(value) else None


def _segments(text: str) -> Iterator[str]:
    """Yield what stands between the bars; a bar within a text is part of it, until a space."""
    held = ""
    parts = text.split("|")
    for part in parts[1:-1]:
        whole = held + part
        _, colon, value = whole.rpartition(" ")[2].rpartition("\t")[2].partition(":")
        if colon and not _NUMBER.fullmatch(value):
            held = f"{whole}|"
        else:
            held = ""
            yield whole
    if len(parts) > 1:
        yield held + parts[-1]
