"""Method progressive: predict, score, learn, row by row.

So no prediction has seen its own row.

Progressive validation: Blum, Kalai & Langford (1999), "Beating the hold-out",
doi:10.1145/307400.307439. The value is the mean, over the log, of how well the policy did while it
learned from that very log, with the log's propensities.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np

from bandits.errors import BadRowError
from bandits.values import MAX_NUMBER
from bandits.vw.command_line import read_command
from bandits.vw.log_reader import LogFormat, VwLabel
from policies.spec import PolicySpec
from simulator.learners.curve import Curve, CurvePoint
from simulator.learners.online import PUBLISH_EVERY, OnlinePolicy
from simulator.learners.vw_target import open_reader
from simulator.logs import dsjson, vw_text
from simulator.logs.files import LogFile
from simulator.logs.left_out import BAD, LeftOut, left_out_of
from simulator.logs.rows import Piece
from simulator.logs.text_records import WEIGHT, Span, TextRecord, describe_bad_record, records
from simulator.replay.over_time import (
    OverTime,
    ValueSums,
    check_count,
    check_widths,
    values_over_time,
    window_at,
)

NO_ACTIONS = "lines without a, which VW passes over"
PROGRESS_EVERY = 1000
"""Examples of VW between two reports of progress."""


@dataclass(frozen=True, slots=True)
class Progressive:
    """The progressive value of a policy, estimated from importance weights, and its curves.

    Values are NaN when there is nothing to take a mean of.

    Attributes:
        rows: How many rows were read.
        skipped: The bad rows among what was left out.
        left_out: What of the log was no row, and why.
        ips_stderr: The standard error of ``ips``, as if rows were independent of one another.
        over_time: The IPS value by windows of time, with 95% intervals, where that was asked for.
    """

    rows: int
    skipped: int
    ips: float
    snips: float
    ips_curve: tuple[CurvePoint, ...]
    snips_curve: tuple[CurvePoint, ...]
    left_out: LeftOut = field(default_factory=LeftOut)
    ips_stderr: float = math.inf
    over_time: Sequence[OverTime] = ()


@dataclass(frozen=True, slots=True)
class VwProgressive:
    """The progressive value of VW on its own log.

    Attributes:
        examples: How many examples VW predicted.
        labelled: How many of them have a label.
        average_loss: As VW prints it, lower is better; NaN where VW prints "n.a.", when no example
            has a label. Minus it is the progressive IPS value.
        left_out: What of the log was left out, and why.
        notes: What of the arguments was left out.
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
    every_s: Sequence[int] = (),
    progress: Callable[[int], None] = lambda _: None,
) -> Progressive:
    """Return the value of a policy that learns, from nothing, on a log in the log's order.

    Each row is first predicted by the model as last published: its importance weight is
    pmf(chosen) / propensity, and its product is that times the reward. Then the learner is given
    the row with the log's propensity. IPS is the mean of the products, SNIPS their sum over the sum
    of the weights. A row that stands for several decisions counts as that many in both; it is
    learned from once.

    Args:
        spec: The policy.
        pieces: The log.
        publish_every: Rows between two models: 1 is progressive validation to the letter, more is
            faster, and nearer to what a service does.
        seed: Seed of the policy's own chance.
        every_s: Widths of windows of time to say the value in, too, in seconds.
        progress: Told how many rows were read.

    Raises:
        BadRowError: A row is malformed.
        ReplayError: The log cannot be read, or the spec is of a mixture.
    """
    check_widths(every_s)
    online = OnlinePolicy(spec, publish_every=publish_every, seed=seed)
    rows, left_out = 0, LeftOut()
    ips, snips, sums = Curve(), Curve(), ValueSums()
    windows: defaultdict[int, ValueSums] = defaultdict(ValueSums)

    for piece in pieces:
        for batch in piece.batches():
            counts = batch.columns.get(WEIGHT, np.ones(len(batch)))
            for row, count in zip(batch.decisions, counts.tolist(), strict=True):
                context, actions = online.features(row)
                weight = (
                    count * float(online.pmf(row, context, actions)[row.chosen]) / row.propensity
                )
                product = weight * row.reward
                ips.add(product, count)
                sums.add(product, count)
                if every_s:
                    windows[window_at(row.time_ms, 1000 * min(every_s))].add(product, count)
                snips.add(weight * row.reward, weight)

                # Only now: no prediction has seen its own row.
                online.learn(row, context, actions, row.propensity)
            rows += len(batch)
            check_count(len(windows))
            progress(rows)
        left_out.merge(left_out_of([piece]))

    return Progressive(
        rows,
        left_out.skipped,
        ips.value,
        snips.value,
        ips.points(),
        snips.points(),
        left_out,
        sums.stderr,
        values_over_time("ips", windows, every_s),
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
    """Return what VW's own command line would print as its average loss.

    The command is ``vw ARGS [--dsjson] -d LOG [-i MODEL]``. VW parses each example, predicts, and
    learns; with ``-t`` in ``args`` it only predicts. The loss of a labelled example is cost /
    probability times VW's probability of the chosen action; examples without a label are predicted
    only.

    As VW does, lines of dsjson without ``a``, with ``_skipLearn``, or that do not begin with ``{``
    are passed over, and counted; the others weigh 1 / (1 - pdrop). Options of VW's output are left
    out, with a note. Differs from VW: what VW mends without a word (a cost that is no number, a
    probability above 1) or dies of is a bad row here.

    Args:
        log: A file, or several, which are one log in their order.
        args: VW's command line, without ``-d`` and ``-i``.
        log_format: VW's name of the format.
        model: The model to go on from, VW's ``-i``.
        skip_bad: Whether bad rows are counted and left out, rather than an error.
        progress: Told how many examples were read.

    Raises:
        SpecError, SnapshotError: The arguments or the model cannot be used.
        BadRowError: An example is malformed, and bad rows are not to be skipped. Names file and
            line.
        ReplayError: A file cannot be read.
    """
    command = read_command(args, model)
    reader = open_reader(command, log_format)
    read = LABELS[log_format]
    files = [log] if isinstance(log, LogFile) else log
    spans = [Span(file, blocks=log_format == "text") for file in files]

    loss, examples, labelled = Curve(), 0, 0
    left_out = LeftOut()
    for record in chain.from_iterable(map(records, spans)):
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

        # An example without a label moves the curve on, and does not enter the mean.
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
    """Return the label of a line, or why VW passes over the line."""
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
"""By format, the reader of a record's label; it returns a text where VW skips the record."""
