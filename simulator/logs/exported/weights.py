"""The weights of an exported model, under the names that features have here.

The logs that were exported beside it say which feature is which: what they name, the model knows.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from bandits.errors import SpecError
from bandits.vw.config import VwConfig
from bandits.vw.log_reader import VwLogReader
from bandits.vw.renaming import RenamedModel, WeightRenamer
from bandits.vw.weights import parse_arguments
from policies.artifacts.learner_model import TrainedModel
from policies.spec import PolicySpec
from simulator.logs.dsjson import dsjson_pieces
from simulator.logs.exported.names import renamed_actions
from simulator.logs.files import LogFile
from simulator.logs.text_records import records

MOST = 20_000
"""Decisions after which only every second is looked at, after as many again every fourth."""


class CarriedWeights(NamedTuple):
    """A model that goes on from an exported one.

    Attributes:
        trained: the model.
        found: what came of its weights.
        unknown: how many of the decisions that were looked at were not understood for certain.
    """

    trained: TrainedModel
    found: RenamedModel
    unknown: int


def carry_weights(
    spec: PolicySpec,
    model: bytes,
    arguments: str,
    files: Sequence[LogFile],
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> CarriedWeights:
    """Return a model that knows what an exported one did of all that is named in exported logs.

    Args:
        spec: the policy that goes on from it.
        model: the bytes that Vowpal Wabbit has written.
        arguments: those that it was made with.
        files: the logs, dsjson.
        progress: is told how many decisions were read.

    Raises:
        SpecError: nothing can be taken over; the message says why.
        SnapshotError: Vowpal Wabbit cannot read the model.
        ReplayError: a file cannot be read.
    """
    plan = parse_arguments(arguments)
    if not isinstance(spec.learner, VwConfig) or plan is None:
        raise SpecError(f"the scores of '{arguments}' are no sums of its weights", "model")
    renamer = WeightRenamer(arguments, model, spec.learner.args)
    reader = VwLogReader("", "dsjson", model=model, learns=False)

    read = looked_at = known = 0
    stride = 1
    for piece in (piece for file in files for piece in dsjson_pieces(file)):
        for record in records(piece.span):
            line = record.lines[0]
            if line[:1] != b"{":
                continue
            read += 1
            progress(read)
            if read % stride:
                continue
            actions = renamed_actions(line, reader, plan.bits)
            renamer.add(actions)
            looked_at, known = looked_at + 1, known + bool(actions)
            stride <<= looked_at % MOST == 0

    if not known:
        raise SpecError(
            f"of {looked_at:,} decisions none has features that are understood for certain", "logs"
        )
    found = renamer.renamed()
    trained = TrainedModel(
        spec_bytes=spec.encoded, learned=found.decisions, checkpoint=found.checkpoint
    )
    return CarriedWeights(trained, found, looked_at - known)
