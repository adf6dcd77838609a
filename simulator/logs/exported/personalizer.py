"""Logs that Azure AI Personalizer has exported, as its clients' requests are logged here.

They are dsjson. Features that a request gives without a namespace stand there in ``FromUrl`` (of
the context) and ``j`` (of an action), and an action's id in ``i``: here they have no such names.
Features of a slot of a page are of its context, under ``slot``.
"""

from collections.abc import Sequence
from dataclasses import replace

from bandits.errors import BadRowError
from bandits.values import FeatureMap
from simulator.logs.dsjson import context_of_line, dsjson_pieces, parse_dsjson
from simulator.logs.files import LogFile
from simulator.logs.rows import LoggedDecision
from simulator.logs.text_records import Parsed, RecordPiece, TextRecord
from simulator.logs.vw_features import combine, read_json_features

BARE_CONTEXT, BARE_ACTION, IDS = "FromUrl.", "j.", "i."
OF_SLOT = "slot."
"""What the features of a slot begin with in its context, as they are logged here."""
_ID = f"{IDS}id"


def exported_pieces(files: Sequence[LogFile], *, skip_bad: bool = False) -> list[RecordPiece]:
    """Return the pieces of exported logs.

    Args:
        files: in their order.
        skip_bad: whether bad rows are counted and left out, rather than an error.

    Raises:
        ReplayError: a file cannot be read.
    """
    return [
        replace(piece, parse=parse_exported)
        for file in files
        for piece in dsjson_pieces(file, skip_bad=skip_bad)
    ]


def parse_exported(record: TextRecord) -> Parsed:
    """Return one line as ``parse_dsjson`` does, as it would be logged here.

    Raises:
        BadRowError: the line is malformed.
    """
    parsed = parse_dsjson(record)
    if parsed is None or isinstance(parsed, str):
        return parsed
    if isinstance(parsed, list):
        slots = _slots_of(record)
        return [
            (_in_slot(as_served(row), slots[at] if at < len(slots) else {}), weight)
            for at, (row, weight) in enumerate(parsed)
        ]
    row, weight = parsed
    return as_served(row), weight


def as_served(row: LoggedDecision) -> LoggedDecision:
    """Return a row of an exported log, its actions and features named as here."""
    features = [each or {} for each in row.features or ()]
    ids = [each.get(_ID) for each in features]
    named = [each for each in ids if isinstance(each, str)]
    tells = len(named) == len(row.action_ids) == len(set(named))
    return replace(
        row,
        context=_without(row.context, BARE_CONTEXT),
        action_ids=named if tells else row.action_ids,
        features=[
            _without({k: v for k, v in each.items() if not k.startswith(IDS)}, BARE_ACTION)
            for each in features
        ],
    )


def _slots_of(record: TextRecord) -> list[FeatureMap]:
    """Return the features of each slot of a line, named as here.

    Raises:
        BadRowError: they are none.
    """
    text, where = record.lines[0], record.where()
    sent = bytes(context_of_line(text).get("_slots", b"[]"))
    try:
        # They stand there as actions do.
        _, slots, _ = read_json_features(b'{"_multi":%b}' % sent, where)
    except BadRowError as error:
        message = f"{where}: c._slots is the list of the slots, each an object"
        raise BadRowError(message, "c._slots") from error
    return [_without(_without(each, BARE_ACTION), BARE_CONTEXT) for each in slots]


def _in_slot(row: LoggedDecision, features: FeatureMap) -> LoggedDecision:
    """Return a row whose context has the features of its slot, too."""
    own = {f"{OF_SLOT}{name}": value for name, value in features.items()}
    return replace(row, context={**row.context, **own}) if own else row


def _without(features: FeatureMap, prefix: str) -> FeatureMap:
    """Return features without the namespace of those that were given none."""
    out: FeatureMap = {}
    for name, value in features.items():
        combine(out, name.removeprefix(prefix), value)
    return out
