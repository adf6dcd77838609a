"""Vowpal Wabbit's logs as JSON (``--dsjson``), one decision a line.

Source: VW 9.9, ``core/parse_example_json.h``, and the VW wiki's page on dsjson. A reward is minus a cost.
"""

from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
import numpy as np

from bandits.codec import MALFORMED
from bandits.errors import BadRowError
from bandits.types import Pmf, frozen
from bandits.values import FeatureMap
from simulator.logs.base import LoggedDecision
from simulator.logs.files import LogFile
from simulator.logs.lines import PIECE_BYTES, Parsed, Record, RecordPiece, check_logged, cut

PMF_SLACK = 1e-4
"""VW's probabilities are float32; what is further from a PMF than this is none."""


class Label(msgspec.Struct, frozen=True):
    """What a line says of the choice, all but its features. ``a``: actions from 1, the chosen one first; ``p`` theirs.

    ``pdrop``: the probability with which the service drops a decision from its log, before it knows the reward.
    """

    cost: float | None = msgspec.field(name="_label_cost", default=None)
    probability: float | None = msgspec.field(name="_label_probability", default=None)
    action: int | None = msgspec.field(name="_label_Action", default=None)
    index: int | None = msgspec.field(name="_labelIndex", default=None)
    skip: bool | None = msgspec.field(name="_skipLearn", default=None)
    outcomes: msgspec.Raw = msgspec.field(name="_outcomes", default=msgspec.Raw())
    pdrop: float | None = None
    a: list[int] | None = None
    p: list[float] | None = None

    @property
    def weight(self) -> float:
        """How many decisions of the service this one stands for."""
        return 1.0 / (1.0 - (self.pdrop or 0.0))

    def chosen(self, record: Record) -> int | None:
        """Index of the chosen action from 0, or None: no label, or one that was never carried out.

        Raises:
            BadRowError: half a label, one that contradicts itself, of several slots, or an impossible ``pdrop``.
        """
        if self.outcomes:
            message = "a decision with several slots (CCB, slates) is not read here"
            raise BadRowError(f"{record.where()}: {message}", "_outcomes")
        if not 0.0 <= (self.pdrop or 0.0) < 1.0:
            raise BadRowError(f"{record.where()}: pdrop is in [0, 1), not {self.pdrop}", "pdrop")
        if self.skip or (self.cost is None and self.probability is None):
            return None
        if self.cost is None or self.probability is None:
            raise BadRowError(f"{record.where()}: a label is both a cost and a probability", "_label_cost")
        action = self.action if self.action is not None or not self.a else self.a[0]
        index = self.index if self.index is not None or action is None else action - 1
        if index is None or (self.action is not None and self.action != index + 1):
            message = "_labelIndex + 1 and _label_Action are the chosen action"
            raise BadRowError(f"{record.where()}: {message}", "_labelIndex")
        return index


class _Line(Label, frozen=True):
    c: dict[str, Any] = msgspec.field(default_factory=dict)
    event_id: str = msgspec.field(name="EventId", default="")
    event_id_of_old: str = msgspec.field(name="eventId", default="")
    timestamp: str | None = msgspec.field(name="Timestamp", default=None)


_lines = msgspec.json.Decoder(_Line)
_labels = msgspec.json.Decoder(Label)


def dsjson_pieces(path: LogFile, *, piece_bytes: int = PIECE_BYTES, skip_bad: bool = False) -> list[RecordPiece]:
    """A log in dsjson as pieces.

    Action ids are the actions' ``_tag`` where every action of the line has one of its own, else "1" to "K" by place.
    A feature is named by the path to it, joined with dots; what is in an array has the array's name, its numbers one
    each with their place. Keys that start with an underscore are no features. Without an ``EventId`` a decision is
    named by its place. ``pmf`` is None where ``a`` and ``p`` are not a PMF over all actions with the label's
    probability. Lines without a label, or with ``_skipLearn``, are not decisions. The column ``weight`` is
    1 / (1 - pdrop).

    Raises:
        ReplayError: the file cannot be read.
    """
    return [RecordPiece(span, parse_dsjson, skip_bad) for span in cut(path, piece_bytes=piece_bytes)]


def read_label(record: Record) -> Label:
    """The label alone, which takes a fraction of the time.

    Raises:
        BadRowError: not such a line.
    """
    return _decode(_labels, record)


def parse_dsjson(record: Record) -> Parsed:
    """One line as a row and its weight.

    Raises:
        BadRowError: the line is malformed.
    """
    line, where = _decode(_lines, record), record.where()
    chosen = line.chosen(record)
    if chosen is None or line.cost is None or line.probability is None:
        return None
    actions = line.c.get("_multi")
    if not isinstance(actions, list) or not all(isinstance(action, dict) for action in actions):
        raise BadRowError(f"{where}: c._multi is the list of the actions, each an object", "c._multi")
    tags = [str(action.get("_tag", "")) for action in actions]
    ids = tags if all(tags) and len(set(tags)) == len(tags) else [str(k + 1) for k in range(len(actions))]
    try:
        context, features = flatten(line.c), [flatten(action) for action in actions]
    except (OverflowError, RecursionError) as error:
        raise BadRowError(f"{where}: the features are nested too deep, or too large: {error}", "c") from error
    row = LoggedDecision(
        event_id=line.event_id or line.event_id_of_old or record.event_id,
        context=context,
        action_ids=ids,
        chosen=chosen,
        propensity=line.probability,
        reward=-line.cost,
        features=features,
        pmf=_pmf(line, len(actions), chosen),
        time_ms=_time_ms(line.timestamp, where),
    )
    return check_logged(row, where), line.weight


def flatten(tree: dict[str, Any]) -> FeatureMap:
    """The features of a JSON object, each named by the path to it. A null, or an underscore's key, is none.

    Of two with one name the last counts; texts in arrays add up to one list.
    """
    features: FeatureMap = {}
    _gather(tree, "", features)
    return features


def _gather(value: Any, name: str, features: FeatureMap) -> None:
    if isinstance(value, dict):
        prefix = f"{name}." if name else ""
        for key, inner in value.items():
            if not key.startswith("_"):
                _gather(inner, prefix + key, features)
    elif isinstance(value, bool | str):
        features[name] = value
    elif isinstance(value, int | float):
        features[name] = float(value)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            if isinstance(inner, str):
                known = features.get(name)
                if isinstance(known, list):
                    known.append(inner)
                else:
                    features[name] = [inner]
            else:
                _gather(inner, f"{name}.{place}" if isinstance(inner, int | float) else name, features)


_Decoded = TypeVar("_Decoded", bound=Label)


def _decode(decoder: "msgspec.json.Decoder[_Decoded]", record: Record) -> _Decoded:
    try:
        return decoder.decode(record.lines[0])
    except MALFORMED as error:
        raise BadRowError(f"{record.where()}: not a decision in dsjson: {error}", "line") from error


def _pmf(line: Label, count: int, chosen: int) -> Pmf | None:
    """float64[K] in the order of the actions, or None if the line does not hold one."""
    if line.a is None or line.p is None or sorted(line.a) != list(range(1, count + 1)) or len(line.p) != count:
        return None
    pmf = np.empty(count)
    pmf[np.array(line.a) - 1] = line.p
    total = float(pmf.sum())
    if not (abs(total - 1.0) <= PMF_SLACK and pmf.min() >= 0.0 and 0 <= chosen < count):
        return None
    agrees = abs(pmf[chosen] - (line.probability or 0.0)) <= PMF_SLACK * pmf[chosen]
    return frozen(pmf / total) if agrees else None


def _time_ms(text: str | None, where: str) -> int:
    if text is None:
        return 0
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadRowError(f"{where}: a time is as in ISO 8601, not {text!r}", "Timestamp") from error
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
