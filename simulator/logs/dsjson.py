"""Vowpal Wabbit's logs as JSON (``--dsjson``), one decision a line.

Source: VW 9.9, ``core/parse_example_json.h``, and the VW wiki's page on dsjson. A reward is minus a
cost.
"""

import json
from collections.abc import ItemsView
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from bandits.errors import BadRowError
from bandits.log.codec import MALFORMED
from bandits.types import Pmf, frozen
from bandits.values import FeatureMap, Value
from simulator.logs.files import LogFile
from simulator.logs.left_out import MARKER
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

PMF_SLACK = 1e-4
"""VW's probabilities are float32; what is further from a PMF than this is none."""
NO_LABEL = "lines without a label"
SKIP_LEARN = "lines with _skipLearn"
_KNOWN = {
    name.lower(): name
    for name in ("_label_cost", "_label_probability", "_label_Action", "_labelIndex")
}  # VW reads them without regard to case


class DsjsonLabel(msgspec.Struct, frozen=True):
    """What a line says of the choice, all but its features.

    ``a``: actions from 1, the chosen one first.

    ``pdrop``: the probability with which the service drops a decision from its log, before it knows
    the reward.
    """

    cost: float | UnsetType | None = msgspec.field(name="_label_cost", default=UNSET)
    probability: float | UnsetType | None = msgspec.field(name="_label_probability", default=UNSET)
    action: float | UnsetType | None = msgspec.field(name="_label_Action", default=UNSET)
    index: int | UnsetType | None = msgspec.field(name="_labelIndex", default=UNSET)
    skip: bool | None = msgspec.field(name="_skipLearn", default=None)
    outcomes: msgspec.Raw = msgspec.field(name="_outcomes", default=msgspec.Raw())
    pdrop: float | None = None
    a: list[float | None] | float | None = None

    @property
    def weight(self) -> float:
        """How many decisions of the service this one stands for."""
        return 1.0 / (1.0 - (self.pdrop or 0.0))

    @property
    def actions(self) -> list[int]:
        """``a``, where VW takes a single number for a list of one, and passes over null."""
        return [int(each) for each in _listed(self.a)]

    @property
    def keys(self) -> int:
        """How many of the label's keys the line has."""
        known = (self.cost is not UNSET) + (self.probability is not UNSET)
        return known + (self.action is not UNSET) + (self.index is not UNSET)

    def chosen(self, record: TextRecord) -> int | None:
        """Index of the chosen action from 0, or None: no label (a cost of null is none), or one not carried out.

        Raises:
            BadRowError: half a label, one that contradicts itself, or an impossible ``pdrop``.
        """
        if not 0.0 <= (self.pdrop or 0.0) < 1.0:
            raise BadRowError(f"{record.where()}: pdrop is in [0, 1), not {self.pdrop}", "pdrop")
        if (
            self.skip
            or self.cost is None
            or (self.cost is UNSET and self.probability in {UNSET, None})
        ):
            return None
        if self.cost is UNSET or not isinstance(self.probability, float):
            raise BadRowError(
                f"{record.where()}: a label is both a cost and a probability", "_label_cost"
            )
        action = int(self.action) if isinstance(self.action, float) else None
        index = self.index if isinstance(self.index, int) else None
        if index is None and (action is not None or self.actions):
            index = (self.actions[0] if action is None else action) - 1
        if index is None or (action is not None and action != index + 1):
            message = "_labelIndex + 1 and _label_Action are the chosen action"
            raise BadRowError(f"{record.where()}: {message}", "_labelIndex")
        return index


class _Line(DsjsonLabel, frozen=True):
    """``p``: the probabilities of ``a``, by either name."""

    p: list[float | str | None] | float | None = None
    other_p: list[float | str | None] | float | None = msgspec.field(name="_p", default=None)
    c: msgspec.Raw = msgspec.field(default=msgspec.Raw())
    event_id: str | None = msgspec.field(name="EventId", default=None)
    event_id_of_old: str | None = msgspec.field(name="eventId", default=None)
    timestamp: str | None = msgspec.field(name="Timestamp", default=None)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with keys that are repeated."""


_SIMPLE = {str, float, bool}
_lines = msgspec.json.Decoder(_Line)
_labels = msgspec.json.Decoder(DsjsonLabel)
_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])


def dsjson_pieces(
    path: LogFile, *, piece_bytes: int = PIECE_BYTES, skip_bad: bool = False
) -> list[RecordPiece]:
    """A log in dsjson as pieces.

    Action ids are the actions' ``_tag`` where every action of the line has one of its own, else "1"
    to "K" by place. A feature is named by the path to it, joined with dots; what is in an array has
    the array's name, its numbers one each with their place; each word of a ``_text`` is one. Of one
    name, numbers add up and texts are a list, as in VW (see ``FeatureCollector``). Other keys that start
    with an underscore are no features. Without an ``EventId`` a decision is named by its place.
    ``pmf`` is None where ``a`` and ``p`` are not a PMF over all actions with the label's
    probability. Lines without a label, with ``_skipLearn``, or that do not begin with ``{`` are not
    decisions; they are counted. The column ``weight`` is 1 / (1 - pdrop).

    Raises:
        ReplayError: the file cannot be read.
    """
    return [
        RecordPiece(span, parse_dsjson, skip_bad)
        for span in cut_into_spans(path, piece_bytes=piece_bytes)
    ]


def read_dsjson_label(record: TextRecord) -> DsjsonLabel | str:
    """The label alone, which takes a fraction of the time; or why there is none.

    Raises:
        BadRowError: not such a line.
    """
    return _read(_labels, record)


def parse_dsjson(record: TextRecord) -> Parsed:
    """One line as a row and its weight, or why it is no decision.

    Raises:
        BadRowError: the line is malformed.
    """
    line, where = _read(_lines, record), record.where()
    if isinstance(line, str):
        return line
    chosen = line.chosen(record)
    if (
        chosen is None
        or not isinstance(line.cost, float)
        or not isinstance(line.probability, float)
    ):
        return SKIP_LEARN if line.skip else NO_LABEL
    try:
        context, actions, tags = _read_features(bytes(line.c), where)
    except (OverflowError, *MALFORMED) as error:
        raise BadRowError(
            f"{where}: the features are nested too deep, or too large: {error}", "c"
        ) from error
    ids = (
        tags
        if all(tags) and len(set(tags)) == len(tags)
        else [str(k + 1) for k in range(len(actions))]
    )
    row = LoggedDecision(
        event_id=(line.event_id or "").strip()
        or (line.event_id_of_old or "").strip()
        or record.event_id,
        context=context,
        action_ids=ids,
        chosen=chosen,
        propensity=line.probability,
        reward=-line.cost,
        features=actions,
        pmf=_pmf(line, len(actions), chosen),
        time_ms=_time_ms(line.timestamp, where),
    )
    return check_logged(row, where), line.weight


_Decoded = TypeVar("_Decoded", DsjsonLabel, _Line)


def _read(decoder: "msgspec.json.Decoder[_Decoded]", record: TextRecord) -> "_Decoded | str":
    """The line, with its label's keys as they should be; or ``MARKER``."""
    text = record.lines[0]
    if text[:1] != b"{":
        return MARKER
    try:
        line = decoder.decode(text)
        if line.outcomes and bytes(line.outcomes) != b"null":
            raise _several_slots(record, "_outcomes")
        if b'"_slots"' in text and "_slots" in _context_of(text):
            raise _several_slots(record, "c._slots")
        if b'"__aid"' in text:
            raise BadRowError(
                f"{record.where()}: an action that refers to another (__aid) is not read here",
                "__aid",
            )
        if text.count(b'"_label') == line.keys:
            return line
        return decoder.decode(_with_known_keys(text, record))
    except MALFORMED as error:
        raise BadRowError(f"{record.where()}: not a decision in dsjson: {error}", "line") from error


def _with_known_keys(text: bytes, record: TextRecord) -> bytes:
    """The line with the keys of its label as they are usually written, also if they stand within ``c``."""
    line = _objects.decode(text)
    context = _context_of(text)
    label = {
        _known(key, record): value
        for key, value in [*line.items(), *context.items()]
        if key.startswith("_label")
    }
    rest = {key: value for key, value in line.items() if not key.startswith("_label")}
    for key, value in context.items():
        if not key.startswith("_label") and b'"_label' in bytes(value):
            _refuse_labels(msgspec.json.decode(value), record)
    return msgspec.json.encode({**label, **rest})


def _known(key: str, record: TextRecord) -> str:
    known = _KNOWN.get(key.lower())
    if known is None:
        what = " of continuous actions (CATS)" if key.startswith("_label_ca") else ""
        message = f"{key} is a label{what} that is not read here: its keys are {', '.join(_KNOWN.values())}"
        raise BadRowError(f"{record.where()}: {message}", key)
    return known


def _refuse_labels(tree: Any, record: TextRecord) -> None:
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if key.startswith("_label"):
            message = f"{key} stands within an action or a namespace: a label stands before c, or right within it"
            raise BadRowError(f"{record.where()}: {message}", key)
        _refuse_labels(value, record)
    for value in tree if isinstance(tree, list) else ():
        _refuse_labels(value, record)


def _context_of(text: bytes) -> dict[str, msgspec.Raw]:
    context = bytes(_objects.decode(text).get("c", msgspec.Raw(b"{}")))
    return _objects.decode(context) if context[:1] == b"{" else {}


def _several_slots(record: TextRecord, target: str) -> BadRowError:
    return BadRowError(
        f"{record.where()}: a decision with several slots (CCB, slates) is not read here", target
    )


class _Reader:
    """Reads the features of ``c``.

    ``keys``: how many all its objects have; ``multi``: the lists of actions; ``tag``: of the object
    read last.
    """

    def __init__(self) -> None:
        self.keys = 0
        self.multi: list[Any] = []
        self.tag = ""

    def read(self, tree: Any) -> FeatureMap:
        """The features of an object.

        ``_multi`` is put aside, wherever it stands, and so is its ``_tag``.
        """
        features, self.tag = FeatureCollector(), ""
        self._object(tree, "", None, features)
        return features.done()

    def _object(
        self, tree: Any, prefix: str, path: list[str] | None, into: FeatureCollector
    ) -> None:
        """``prefix``: the path, joined, with a dot at its end.

        ``path``: given once one of its keys has a dot.
        """
        self.keys += len(tree)
        plain = into.plain
        for key, value in _items(tree):
            if key[:1] == "_":
                self._special(key, value, prefix, path, into)
            elif (
                path is None
                and type(value) in _SIMPLE
                and "." not in key
                and prefix + key not in plain
            ):
                plain[prefix + key] = value  # as most are, and sooner
            else:
                self._value(value, prefix, key, path, into)

    def _value(
        self, value: Any, prefix: str, key: str, path: list[str] | None, into: FeatureCollector
    ) -> None:
        if path is None and "." in key:
            path = prefix.split(".")[:-1]
        inner = None if path is None else [*path, key]
        if isinstance(value, dict | _Pairs):
            self._object(value, f"{prefix}{key}.", inner, into)
        elif isinstance(value, list):
            self._list(value, f"{prefix}{key}", inner, into)
        elif value is not None:
            _put(
                value if isinstance(value, bool | str) else float(value), prefix + key, inner, into
            )

    def _list(
        self, values: list[Any], name: str, path: list[str] | None, into: FeatureCollector
    ) -> None:
        """Of texts and objects each has the list's name.

        Of numbers and lists, that and its place.
        """
        for place, value in enumerate(values):
            if isinstance(value, str):
                _put([value], name, path, into)
            elif isinstance(value, dict | _Pairs):
                self._object(value, f"{name}.", path, into)
            else:
                self._value(value, f"{name}.", str(place), path, into)

    def _special(
        self, key: str, value: Any, prefix: str, path: list[str] | None, into: FeatureCollector
    ) -> None:
        if key == "_multi":
            self.multi.append(value)
        elif key == "_text" and isinstance(value, str):
            for word in value.replace("\t", " ").split(" "):
                if word:
                    self._value(1.0, prefix, word, path, into)
        else:
            if key.lower() == "_tag":
                self.tag = str(value)
            self.keys += _count_keys(value)


def _put(value: Value, name: str, path: list[str] | None, into: FeatureCollector) -> None:
    if path is not None:
        into.add_dotted(path, value)
    elif name in into.plain:
        combine(into.plain, name, value)
    else:
        into.plain[name] = value


def _read_features(raw: bytes, where: str) -> tuple[FeatureMap, list[FeatureMap], list[str]]:
    """Of the context, of each action, and the actions' tags."""
    tree = msgspec.json.decode(raw) if raw else None
    context, actions, tags, keys = _features_of(tree, where)
    if keys != raw.count(b'":'):  # a key may be repeated, which a dict does not say
        context, actions, tags, _ = _features_of(json.loads(raw, object_pairs_hook=_Pairs), where)
    return context, actions, tags


def _features_of(tree: Any, where: str) -> tuple[FeatureMap, list[FeatureMap], list[str], int]:
    reader = _Reader()
    context = reader.read(tree) if isinstance(tree, dict | _Pairs) else {}
    given = reader.multi[0] if len(reader.multi) == 1 else None
    # VW passes over these, and over no later ones
    while isinstance(given, list) and given and given[0] is None:
        given = given[1:]
    if not isinstance(given, list) or not all(
        isinstance(action, dict | _Pairs) for action in given
    ):
        raise BadRowError(
            f"{where}: c._multi is the list of the actions, each an object", "c._multi"
        )
    read = [(reader.read(action), reader.tag) for action in given]
    if len(reader.multi) > 1:
        raise BadRowError(f"{where}: c._multi is given once, and not within an action", "c._multi")
    return context, [features for features, _ in read], [tag for _, tag in read], reader.keys


def _items(tree: Any) -> "ItemsView[str, Any] | _Pairs":
    return tree if isinstance(tree, _Pairs) else tree.items()


def _count_keys(tree: Any) -> int:
    if isinstance(tree, dict | _Pairs):
        return len(tree) + sum(_count_keys(value) for _, value in _items(tree))
    return sum(map(_count_keys, tree)) if isinstance(tree, list) else 0


def _listed(given: list[Any] | float | None) -> list[Any]:
    """As VW takes it: one number is a list of it, and null is nothing."""
    values = given if isinstance(given, list) else [given]
    return [each for each in values if each is not None]


def _pmf(line: _Line, count: int, chosen: int) -> Pmf | None:
    """float64[K] in the order of the actions, or None if the line does not hold one."""
    actions, probabilities = line.actions, _listed(line.p) or _listed(line.other_p)
    if sorted(actions) != list(range(1, count + 1)) or len(probabilities) != count:
        return None
    if not all(isinstance(each, float) for each in probabilities):  # VW reads "NaN"
        return None
    pmf = np.empty(count)
    pmf[np.array(actions) - 1] = probabilities
    total = float(pmf.sum())
    if not (abs(total - 1.0) <= PMF_SLACK and pmf.min() >= 0.0 and 0 <= chosen < count):
        return None
    probability = line.probability if isinstance(line.probability, float) else 0.0
    agrees = abs(pmf[chosen] - probability) <= PMF_SLACK * pmf[chosen]
    return frozen(pmf / total) if agrees else None


def _time_ms(text: str | None, where: str) -> int:
    if not text:
        return 0
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadRowError(
            f"{where}: a time is as in ISO 8601, not {text!r}", "Timestamp"
        ) from error
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
