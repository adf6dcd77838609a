"""Vowpal Wabbit's logs as JSON (``--dsjson``), one decision a line.

Source: VW 9.9, ``core/parse_example_json.h``, and the VW wiki's page on dsjson. A reward is minus a
cost.
"""

from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from bandits.errors import BadRowError
from bandits.log.codec import MALFORMED
from bandits.types import Pmf, frozen
from bandits.values import FeatureMap
from simulator.logs.dsjson_pages import PMF_SLACK, one_or_more, page_slots
from simulator.logs.files import LogFile
from simulator.logs.left_out import MARKER
from simulator.logs.rows import LoggedDecision
from simulator.logs.text_records import (
    PIECE_BYTES,
    Parsed,
    RecordPiece,
    Row,
    TextRecord,
    check_logged,
    cut_into_spans,
)
from simulator.logs.vw_features import read_json_features

NO_LABEL = "lines without a label"
SKIP_LEARN = "lines with _skipLearn"
_LABEL_KEYS = {
    name.lower(): name
    for name in ("_label_cost", "_label_probability", "_label_Action", "_labelIndex")
}
"""The keys of a label as they are usually written, by how VW reads them: without regard to case."""


class DsjsonLabel(msgspec.Struct, frozen=True):
    """The label of a line: all but its features.

    Attributes:
        a: The actions from 1, the chosen one first.
        pdrop: The probability with which the service drops a decision from its log, before it
            knows the reward.
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
        return [int(action) for action in one_or_more(self.a)]

    @property
    def keys(self) -> int:
        """How many of the label's keys the line has."""
        outcome = (self.cost is not UNSET) + (self.probability is not UNSET)
        return outcome + (self.action is not UNSET) + (self.index is not UNSET)

    def chosen(self, record: TextRecord) -> int | None:
        """Return the index of the chosen action from 0, or None where there is no label.

        A cost of null is no label, nor is the label of a decision that was not carried out.

        Raises:
            BadRowError: Half a label, one that contradicts itself, or an impossible ``pdrop``.
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

        # Without an index, the action's number says which was chosen, or else the first of ``a``.
        action = int(self.action) if isinstance(self.action, float) else None
        index = self.index if isinstance(self.index, int) else None
        if index is None and (action is not None or self.actions):
            index = (self.actions[0] if action is None else action) - 1

        if index is None or (action is not None and action != index + 1):
            message = "_labelIndex + 1 and _label_Action are the chosen action"
            raise BadRowError(f"{record.where()}: {message}", "_labelIndex")
        return index


class _Line(DsjsonLabel, frozen=True):
    """A line, its features undecoded. ``p`` has the probabilities of ``a``, by either name."""

    p: list[float | str | None] | float | None = None
    other_p: list[float | str | None] | float | None = msgspec.field(name="_p", default=None)
    c: msgspec.Raw = msgspec.field(default=msgspec.Raw())
    event_id: str | None = msgspec.field(name="EventId", default=None)
    event_id_of_old: str | None = msgspec.field(name="eventId", default=None)
    timestamp: str | None = msgspec.field(name="Timestamp", default=None)


_lines = msgspec.json.Decoder(_Line)
_labels = msgspec.json.Decoder(DsjsonLabel)
_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])


def dsjson_pieces(
    path: LogFile, *, piece_bytes: int = PIECE_BYTES, skip_bad: bool = False
) -> list[RecordPiece]:
    """Return the pieces of a log in dsjson.

    Action ids are the actions' ``_tag`` where every action of the line has one of its own, else "1"
    to "K" by place. A feature is named by the path to it, joined with dots; what is in an array has
    the array's name, its numbers one each with their place; each word of a ``_text`` is one. Under
    one name, numbers add up and texts are a list, as in VW (see ``FeatureCollector``). Other keys
    that start with an underscore are no features.

    A page of several slots (CCB) is a row a slot, each among the actions that those above it have
    left; features of the slots themselves are none of a row.

    A decision without an ``EventId`` is named by its place. ``pmf`` is None where ``a`` and ``p``
    are not a PMF over all actions with the label's probability. Lines without a label, with
    ``_skipLearn``, or that do not begin with ``{`` are not decisions; they are counted. The column
    ``weight`` is 1 / (1 - pdrop).

    Args:
        path: The file.
        piece_bytes: Size of a piece, about.
        skip_bad: Whether bad rows are counted and left out, rather than an error.

    Raises:
        ReplayError: The file cannot be read.
    """
    return [
        RecordPiece(span, parse_dsjson, skip_bad)
        for span in cut_into_spans(path, piece_bytes=piece_bytes)
    ]


def read_dsjson_label(record: TextRecord) -> DsjsonLabel | str:
    """Return the label alone, or why there is none; it takes a fraction of a row's time.

    Raises:
        BadRowError: The record is no line of dsjson.
    """
    return _read(_labels, record)


def parse_dsjson(record: TextRecord) -> Parsed:
    """Return one line as a row and its weight, those of a page's slots, or why it is no decision.

    Raises:
        BadRowError: The line is malformed.
    """
    line, where = _read(_lines, record, pages=True), record.where()
    if isinstance(line, str):
        return line
    if _has_outcomes(line):
        return _page(line, record)
    chosen = line.chosen(record)
    if (
        chosen is None
        or not isinstance(line.cost, float)
        or not isinstance(line.probability, float)
    ):
        return SKIP_LEARN if line.skip else NO_LABEL

    context, actions, ids = _features(line, where)
    row = LoggedDecision(
        event_id=_event_id(line, record),
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


def _features(line: _Line, where: str) -> tuple[FeatureMap, list[FeatureMap], list[str]]:
    """Return the features of the context and of each action, and the actions' ids."""
    try:
        context, actions, tags = read_json_features(bytes(line.c), where)
    except (OverflowError, *MALFORMED) as error:
        raise BadRowError(
            f"{where}: the features are nested too deep, or too large: {error}", "c"
        ) from error
    tagged = all(tags) and len(set(tags)) == len(tags)
    return context, actions, tags if tagged else [str(k + 1) for k in range(len(actions))]


def _event_id(line: _Line, record: TextRecord) -> str:
    given = (line.event_id or "").strip() or (line.event_id_of_old or "").strip()
    return given or record.event_id


def _has_outcomes(line: DsjsonLabel) -> bool:
    return bool(line.outcomes) and bytes(line.outcomes) != b"null"


def _page(line: _Line, record: TextRecord) -> list[Row] | str:
    """Return the slots of a line with several of them, or why it has no label."""
    where = record.where()
    if line.skip:
        return SKIP_LEARN
    if not 0.0 <= (line.pdrop or 0.0) < 1.0:
        raise BadRowError(f"{where}: pdrop is in [0, 1), not {line.pdrop}", "pdrop")
    context, actions, ids = _features(line, where)
    page = LoggedDecision(
        event_id=_event_id(line, record),
        context=context,
        action_ids=ids,
        chosen=0,
        propensity=1.0,
        reward=0.0,
        features=actions,
        time_ms=_time_ms(line.timestamp, where),
    )
    slots = page_slots(page, bytes(line.outcomes), where)
    return [(check_logged(row, where), line.weight) for row in slots] or NO_LABEL


_Decoded = TypeVar("_Decoded", DsjsonLabel, _Line)


def _read(
    decoder: "msgspec.json.Decoder[_Decoded]", record: TextRecord, *, pages: bool = False
) -> "_Decoded | str":
    """Return the line, with its label's keys as they should be; or ``MARKER``.

    A line of several slots is refused, unless ``pages`` says that it may have outcomes.
    """
    text = record.lines[0]
    if text[:1] != b"{":
        return MARKER

    try:
        line = decoder.decode(text)
        if _has_outcomes(line):
            if pages and not line.keys:
                return line
            raise _several_slots(record, "_outcomes")
        if b'"_slots"' in text and "_slots" in context_of_line(text):
            raise _several_slots(record, "c._slots")
        if b'"__aid"' in text:
            raise BadRowError(
                f"{record.where()}: an action that refers to another (__aid) is not read here",
                "__aid",
            )

        # Some key of the label is in another case, or elsewhere, if there are more than were read.
        if text.count(b'"_label') == line.keys:
            return line
        return decoder.decode(_with_usual_keys(text, record))
    except MALFORMED as error:
        raise BadRowError(f"{record.where()}: not a decision in dsjson: {error}", "line") from error


def _with_usual_keys(text: bytes, record: TextRecord) -> bytes:
    """Return the line with its label before ``c``, its keys as they are usually written."""
    line = _objects.decode(text)
    context = context_of_line(text)

    # VW reads a label that stands right within ``c``, too.
    label = {
        _usual_key(key, record): value
        for key, value in [*line.items(), *context.items()]
        if key.startswith("_label")
    }
    rest = {key: value for key, value in line.items() if not key.startswith("_label")}
    for key, value in context.items():
        if not key.startswith("_label") and b'"_label' in bytes(value):
            _refuse_labels(msgspec.json.decode(value), record)
    return msgspec.json.encode({**label, **rest})


def _usual_key(key: str, record: TextRecord) -> str:
    usual = _LABEL_KEYS.get(key.lower())
    if usual is None:
        what = " of continuous actions (CATS)" if key.startswith("_label_ca") else ""
        message = (
            f"{key} is a label{what} that is not read here: its keys are"
            f" {', '.join(_LABEL_KEYS.values())}"
        )
        raise BadRowError(f"{record.where()}: {message}", key)
    return usual


def _refuse_labels(tree: Any, record: TextRecord) -> None:
    """Raise if a label stands anywhere in the tree."""
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if key.startswith("_label"):
            message = (
                f"{key} stands within an action or a namespace: a label stands before c, or right"
                " within it"
            )
            raise BadRowError(f"{record.where()}: {message}", key)
        _refuse_labels(value, record)
    for value in tree if isinstance(tree, list) else ():
        _refuse_labels(value, record)


def context_of_line(text: bytes) -> dict[str, msgspec.Raw]:
    """Return what a line says under ``c``, by key, undecoded."""
    context = bytes(_objects.decode(text).get("c", msgspec.Raw(b"{}")))
    return _objects.decode(context) if context[:1] == b"{" else {}


def _several_slots(record: TextRecord, target: str) -> BadRowError:
    return BadRowError(
        f"{record.where()}: a decision with several slots (CCB, slates) is not read here, but by"
        " methods ope and slates where each slot of _outcomes has a _label_cost of its own",
        target,
    )


def _pmf(line: _Line, count: int, chosen: int) -> Pmf | None:
    """Return float64[K] in the order of the actions, or None if the line does not hold one."""
    actions, probabilities = line.actions, one_or_more(line.p) or one_or_more(line.other_p)
    if sorted(actions) != list(range(1, count + 1)) or len(probabilities) != count:
        return None
    if not all(isinstance(value, float) for value in probabilities):  # VW reads "NaN"
        return None

    pmf = np.empty(count)
    pmf[np.array(actions) - 1] = probabilities
    total = float(pmf.sum())
    if not (abs(total - 1.0) <= PMF_SLACK and pmf.min() >= 0.0 and 0 <= chosen < count):
        return None

    # The label's probability is the one that counts; a PMF that says otherwise is of no use.
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
