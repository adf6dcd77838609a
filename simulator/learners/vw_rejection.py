"""Method rejection for Vowpal Wabbit on its own log.

VW learns from what it would have chosen itself, and no more.
"""

from collections.abc import Callable, Iterable

from bandits.decide import uniform
from bandits.errors import BadRowError
from bandits.vw.log_reader import LogFormat
from simulator.learners.curve import Curve
from simulator.learners.online import salt_of
from simulator.learners.progressive import LABELS, PROGRESS_EVERY, UNLABELLED
from simulator.learners.rejection import PURPOSE_REJECTION, Rejection, check_bound, check_uniform
from simulator.learners.vw_target import open_reader
from simulator.logs.left_out import BAD, LeftOut
from simulator.logs.text_records import Span, describe_bad_record, records
from simulator.replay.parse_policy import VwPolicy


def vw_rejection(
    asked: VwPolicy,
    spans: Iterable[Span],
    log_format: LogFormat,
    *,
    bound: float | None = None,
    seed: int = 0,
    skip_bad: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Rejection:
    """Replay a log by rejection through VW, which reads the lines itself.

    This is to VW what ``simulator.learners.rejection.rejection`` is to a policy's spec. VW predicts
    each labelled example; from one that is accepted it learns the cost, with its own probability in
    place of the log's. With ``-t`` it learns from none. Examples without a label tell nothing, and
    are left out.

    Args:
        asked: VW's command line and its name in the report.
        spans: The log.
        log_format: VW's name of the format.
        bound: Bound on importance weights; None: the log is uniformly random.
        seed: Seed of what is accepted.
        skip_bad: Whether bad rows are counted and left out, rather than an error.
        progress: Told how many labelled examples were read.

    Raises:
        SpecError, SnapshotError: The arguments or the model cannot be used.
        BadRowError: An example is malformed, and bad rows are not to be skipped. Names file and
            line.
        ReplayError: There is no bound, and the log is not uniformly random; or it cannot be read.
        InvalidFieldError: The bound is not a positive number.
    """
    check_bound(bound)
    command = asked.command
    reader = open_reader(command, log_format)
    salt, name, read = salt_of(seed), asked.name or "vw", LABELS[log_format]

    rows = accepted = clipped = actions_of_all = 0
    left_out, reward = LeftOut(), Curve()
    for record in (record for span in spans for record in records(span)):
        try:
            label = read(record)
            if isinstance(label, str) or label.chosen is None:
                left_out.add(label if isinstance(label, str) else UNLABELLED)
                continue
            pmf = reader.predict(record.lines, label)
        except BadRowError as error:
            if not skip_bad:
                raise BadRowError(describe_bad_record(read, record, error), error.target) from error
            left_out.add(BAD, left_out.first_bad or describe_bad_record(read, record, error))
            continue

        if bound is None:
            actions_of_all = check_uniform(
                record.event_id, label.probability, len(pmf), actions_of_all
            )

        target = float(pmf[label.chosen])
        chance = target if bound is None else target / (bound * label.probability)
        clipped += chance > 1.0 + 1e-9
        accept = uniform(salt, name, record.event_id, 0, PURPOSE_REJECTION) < chance

        reward.add(-label.cost if accept else 0.0, float(accept))
        rows += 1
        if rows % PROGRESS_EVERY == 0:
            progress(rows)

        # The row was chosen with the policy's probability among those it accepts.
        if accept:
            accepted += 1
            reader.learn(label, target)

    curve = reward.points()
    return Rejection(
        rows,
        left_out.skipped,
        accepted,
        clipped,
        bound is None,
        reward.value,
        curve,
        left_out,
        command.notes,
    )
