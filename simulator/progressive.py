"""Method progressive: predict, score, learn, row by row, so that no prediction has seen its own row.

Progressive validation: Blum, Kalai & Langford (1999), "Beating the hold-out", doi:10.1145/307400.307439. What comes out
is the mean, over the log, of how well the policy did while it learned from that very log, with the log's propensities.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np

from bandits.errors import BadRowError, ReplayError
from bandits.values import MAX_NUMBER
from bandits.vw_log import LogFormat, VwLogReader
from policies.spec import PolicySpec
from simulator.curve import Curve, CurvePoint
from simulator.logs import dsjson, vw_text
from simulator.logs.base import Piece
from simulator.logs.files import LogFile
from simulator.logs.lines import WEIGHT, Record, Span, records
from simulator.online import PUBLISH_EVERY, OnlinePolicy


@dataclass(frozen=True, slots=True)
class Progressive:
    """``ips``, ``snips``: the progressive value, estimated from importance weights, and its curve.

    NaN when there is nothing to take a mean of. ``skipped``: bad rows left out.
    """

    rows: int
    skipped: int
    ips: float
    snips: float
    ips_curve: tuple[CurvePoint, ...]
    snips_curve: tuple[CurvePoint, ...]


@dataclass(frozen=True, slots=True)
class VwProgressive:
    """``average_loss``: as VW prints it, lower is better; NaN where VW prints "n.a.", when no example has a label.

    Minus it is the progressive IPS value. ``examples``: those VW predicted, ``labelled`` of them with a label.
    """

    examples: int
    labelled: int
    skipped: int
    average_loss: float
    curve: tuple[CurvePoint, ...]


def progressive(
    spec: PolicySpec,
    pieces: Iterable[Piece],
    *,
    publish_every: int = PUBLISH_EVERY,
    seed: int = 0,
) -> Progressive:
    """The value of a policy that learns, from nothing, on a log, in the log's order.

    Of each row: the PMF of the model as published last (every ``publish_every`` rows: 1 is progressive validation to
    the letter, more is faster, and nearer to what a service does), the importance weight pmf(chosen) / propensity, and
    its product with the reward; then the learner is given the row with the log's propensity. IPS is the mean of the
    products, SNIPS their sum over the sum of the weights. Rows that stand for several decisions count as that many in
    both; they are learned from once.

    Raises:
        BadRowError: a row is malformed.
        ReplayError: the log cannot be read, or the spec is of a mixture.
    """
    online = OnlinePolicy(spec, publish_every=publish_every, seed=seed)
    rows = skipped = 0
    ips, snips = Curve(), Curve()
    for piece in pieces:
        for batch in piece.batches():
            counts = batch.columns.get(WEIGHT, np.ones(len(batch)))
            for row, count in zip(batch.decisions, counts.tolist(), strict=True):
                context, actions = online.features(row)
                weight = count * float(online.pmf(context, actions)[row.chosen]) / row.propensity
                ips.add(weight * row.reward, count)
                snips.add(weight * row.reward, weight)
                online.learn(row, context, actions, row.propensity)
            rows += len(batch)
        skipped += piece.skipped
    return Progressive(rows, skipped, ips.value, snips.value, ips.points(), snips.points())


def vw_progressive(
    log: LogFile | Sequence[LogFile],
    args: str,
    log_format: LogFormat,
    *,
    model: Path | None = None,
    skip_bad: bool = False,
) -> VwProgressive:
    """What VW's own command line would print as its average loss: ``vw ARGS [--dsjson] -d LOG [-i MODEL]``.

    VW parses each example, predicts, and learns. The loss of a labelled example is cost / probability times VW's
    probability of the chosen action; examples without a label are predicted only. As VW does, lines of dsjson without
    ``a`` or with ``_skipLearn`` are passed over, and the others weigh 1 / (1 - pdrop). Several files are one log, in
    their order. Differs from VW: what VW mends without a word (a cost that is no number, a probability above 1) or dies
    of is a bad row here.

    Raises:
        SpecError, SnapshotError: the arguments or the model.
        BadRowError: a malformed example; names file and line. Not with ``skip_bad``: it is left out and counted.
        ReplayError: a file cannot be read.
    """
    reader = VwLogReader(args, log_format, model=None if model is None else _read(model))
    loss, examples, labelled, skipped = Curve(), 0, 0, 0
    files = [log] if isinstance(log, LogFile) else log
    for record in chain.from_iterable(records(Span(file, blocks=log_format == "text")) for file in files):
        try:
            label = _label(record, log_format)
            if label is None:
                continue
            probability = reader.predict_then_learn(record.lines, label.chosen)
        except BadRowError as error:
            if skip_bad:
                skipped += 1
                continue
            numbered = record.numbered()
            _label(numbered, log_format)  # if it was this that failed, it fails again and names the line
            raise BadRowError(f"{numbered.where()}: {error.message}", error.target) from error
        examples += 1
        if label.chosen is None:
            loss.add(0.0, 0.0)
            continue
        labelled += 1
        loss.add(label.weight * label.cost / label.probability * probability, label.weight)
    return VwProgressive(examples, labelled, skipped, loss.value, loss.points())


class _Label(msgspec.Struct, frozen=True, gc=False):
    """``chosen``: index of the action, None without a label."""

    chosen: int | None
    cost: float = 0.0
    probability: float = 1.0
    weight: float = 1.0


def _label(record: Record, log_format: LogFormat) -> _Label | None:
    """None: VW passes over it."""
    label = _dsjson_label(record) if log_format == "dsjson" else _text_label(record)
    if label is not None and not 0.0 < label.probability <= 1.0:
        raise BadRowError(f"{record.where()}: a propensity is in (0, 1], not {label.probability}", "propensity")
    if label is not None and not abs(label.cost) <= MAX_NUMBER:
        raise BadRowError(f"{record.where()}: a cost is a number up to {MAX_NUMBER:g}, not {label.cost}", "reward")
    return label


def _text_label(record: Record) -> _Label:
    label = vw_text.read_label(record)
    return _Label(None) if label is None else _Label(label.chosen, label.cost, label.probability)


def _dsjson_label(record: Record) -> _Label | None:
    label = dsjson.read_label(record)
    if not label.a or label.skip:
        return None
    chosen = label.chosen(record)
    if chosen is None or label.cost is None or label.probability is None:
        return _Label(None)
    return _Label(chosen, label.cost, label.probability, label.weight)


def _read(model: Path) -> bytes:
    try:
        return model.read_bytes()
    except OSError as error:
        raise ReplayError(f"{model} cannot be read: {error.strerror}", "model") from error
