"""Method progressive: predict, score, learn, row by row, so that no prediction has seen its own row.

Progressive validation: Blum, Kalai & Langford (1999), "Beating the hold-out",
doi:10.1145/307400.307439. What comes out is the mean, over the log, of how well the policy did
while it learned from that very log, with the log's propensities.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from bandits.errors import BadRowError
from bandits.values import MAX_NUMBER
from bandits.vw.log_reader import LogFormat, VwLabel
from bandits.vw.options import read_command
from policies.spec import PolicySpec
from simulator.learners.curve import Curve, CurvePoint
from simulator.learners.online import PUBLISH_EVERY, OnlinePolicy
from simulator.learners.vw_target import open_reader
from simulator.logs import dsjson, vw_text
from simulator.logs.files import LogFile
from simulator.logs.left_out import BAD, LeftOut, left_out_of
from simulator.logs.rows import Piece
from simulator.logs.text_records import WEIGHT, Span, TextRecord, describe_bad_record, records

NO_ACTIONS = "lines without a, which VW passes over"
PROGRESS_EVERY = 1000
"""Examples of VW between two reports of progress."""


@dataclass(frozen=True, slots=True)
class Progressive:
    """``ips``, ``snips``: the progressive value, estimated from importance weights, and its curve.

    NaN when there is nothing to take a mean of. ``skipped``: of what was ``left_out``, the bad
    rows.
    """

    rows: int
    skipped: int
    ips: float
    snips: float
    ips_curve: tuple[CurvePoint, ...]
    snips_curve: tuple[CurvePoint, ...]
    left_out: LeftOut = field(default_factory=LeftOut)


@dataclass(frozen=True, slots=True)
class VwProgressive:
    """``average_loss``: as VW prints it, lower is better; NaN where VW prints "n.a.", when no example has a label.

    Minus it is the progressive IPS value. ``examples``: those VW predicted, ``labelled`` of them
    with a label. ``left_out``: what of the log was not. ``notes``: what of the arguments was left
    out.
    """

    examples: int
    labelled: int
    average_loss: float
    curve: tuple[CurvePoint, ...]
    left_out: LeftOut = field(default_factory=LeftOut)
    notes: Sequence[str] = ()

    @property
    def skipped(self) -> int:
        """Bad rows and lines that are no records."""
        return self.left_out.skipped


def progressive(
    spec: PolicySpec,
    pieces: Iterable[Piece],
    *,
    publish_every: int = PUBLISH_EVERY,
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> Progressive:
    """The value of a policy that learns, from nothing, on a log, in the log's order.

    Of each row: the PMF of the model as published last (every ``publish_every`` rows: 1 is
    progressive validation to the letter, more is faster, and nearer to what a service does), the
    importance weight pmf(chosen) / propensity, and its product with the reward; then the learner is
    given the row with the log's propensity. IPS is the mean of the products, SNIPS their sum over
    the sum of the weights. Rows that stand for several decisions count as that many in both; they
    are learned from once.

    Raises:
        BadRowError: a row is malformed.
        ReplayError: the log cannot be read, or the spec is of a mixture.
    """
    online = OnlinePolicy(spec, publish_every=publish_every, seed=seed)
    rows, left_out = 0, LeftOut()
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
            progress(rows)
        left_out.merge(left_out_of([piece]))
    return Progressive(
        rows, left_out.skipped, ips.value, snips.value, ips.points(), snips.points(), left_out
    )


def vw_progressive(
    log: LogFile | Sequence[LogFile],
    args: str,
    log_format: LogFormat,
    *,
    model: Path | None = None,
    skip_bad: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> VwProgressive:
    """What VW's own command line would print as its average loss: ``vw ARGS [--dsjson] -d LOG [-i MODEL]``.

    VW parses each example, predicts, and learns; with ``-t`` in ``args`` it only predicts. The loss
    of a labelled example is cost / probability times VW's probability of the chosen action;
    examples without a label are predicted only. As VW does, lines of dsjson without ``a``, with
    ``_skipLearn``, or that do not begin with ``{`` are passed over, and counted; the others weigh 1
    / (1 - pdrop). Several files are one log, in their order. ``-i`` is a ``model``, and options of
    VW's output are left out, with a note. Differs from VW: what VW mends without a word (a cost
    that is no number, a probability above 1) or dies of is a bad row here.

    Raises: SpecError, SnapshotError: the arguments or the model. BadRowError: a malformed example;
        names file and line. Not with ``skip_bad``: it is left out and counted. ReplayError: a file
        cannot be read.
    """
    command = read_command(args, model)
    reader = open_reader(command, log_format)
    loss, examples, labelled = Curve(), 0, 0
    left_out = LeftOut()
    read = LABELS[log_format]
    files = [log] if isinstance(log, LogFile) else log
    for record in chain.from_iterable(
        records(Span(file, blocks=log_format == "text")) for file in files
    ):
        try:
            label = read(record)
            if isinstance(label, str):
                left_out.add(label)
                continue
            probability = reader.probability(record.lines, label)
        except BadRowError as error:
            if not skip_bad:
                raise BadRowError(describe_bad_record(read, record, error), error.target) from error
            left_out.add(BAD, left_out.first_bad or describe_bad_record(read, record, error))
            continue
        examples += 1
        if examples % PROGRESS_EVERY == 0:
            progress(examples)
        if label.chosen is None:
            loss.add(0.0, 0.0)
            continue
        labelled += 1
        loss.add(label.weight * label.cost / label.probability * probability, label.weight)
    return VwProgressive(examples, labelled, loss.value, loss.points(), left_out, command.notes)


def _checked(label: VwLabel, record: TextRecord) -> VwLabel:
    if not 0.0 < label.probability <= 1.0:
        raise BadRowError(
            f"{record.where()}: a propensity is in (0, 1], not {label.probability}", "propensity"
        )
    if not abs(label.cost) <= MAX_NUMBER:
        raise BadRowError(
            f"{record.where()}: a cost is a number up to {MAX_NUMBER:g}, not {label.cost}", "reward"
        )
    return label


def _text_label(record: TextRecord) -> VwLabel:
    label = vw_text.read_text_label(record)
    return (
        VwLabel(None)
        if label is None
        else _checked(VwLabel(label.chosen, label.cost, label.probability), record)
    )


def _dsjson_label(record: TextRecord) -> VwLabel | str:
    """Or why VW passes over the line."""
    label = dsjson.read_dsjson_label(record)
    if isinstance(label, str):
        return label
    if label.skip:
        return dsjson.SKIP_LEARN
    if label.a is None or not label.actions:
        return NO_ACTIONS
    chosen = label.chosen(record)
    if (
        chosen is None
        or not isinstance(label.cost, float)
        or not isinstance(label.probability, float)
    ):
        return VwLabel(None)
    return _checked(VwLabel(chosen, label.cost, label.probability, label.weight), record)


UNLABELLED = "examples without a label, which are predicted only"
LABELS: Mapping[LogFormat, Callable[[TextRecord], VwLabel | str]] = {
    "text": _text_label,
    "dsjson": _dsjson_label,
}
"""By format, what reads the label of a record; or says why VW passes over it."""
