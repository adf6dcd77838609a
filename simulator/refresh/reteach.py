"""The blend's weights taught again: the same decisions, with the scores of a new artifact.

A weight says what a source's score is worth, in its units. Where a new artifact's scores have other
units, the weights that were learned mean something else; a model that is taught the same rewards
with the new scores has weights that fit.
"""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from bandits.errors import BanditloopError
from bandits.log.encoded_decisions import whole_record
from bandits.log.join import JoinedDecision
from bandits.log.positions import position_ms
from bandits.log.records import DecisionRecord
from bandits.types import Snapshot
from policies.artifacts.learner_model import TrainedModel
from policies.blend import make_learner
from policies.fold.teaching import taught_interactions, taught_rows
from policies.spec import PolicySpec
from simulator.refresh.log_comparison import CatalogueOf, comparable
from simulator.refresh.rescoring import Rescorer


class TaughtAgain(NamedTuple):
    """A model that was taught with new scores: as a warm start, and as a replica would serve it."""

    model: TrainedModel
    snapshot: Snapshot


def teach_again(
    spec: PolicySpec,
    decisions: Iterable[JoinedDecision],
    rescorer: Rescorer | None,
    catalogue_of: CatalogueOf,
    *,
    salt: bytes,
) -> TaughtAgain | None:
    """Return what the spec's learner knows of these decisions, scored with a new artifact.

    Args:
        spec: the policy.
        decisions: of its log, in order; none that the artifacts are compared on.
        rescorer: scores with the new artifact; None: the scores are those of the log.
        catalogue_of: gives the catalogue that a decision names.
        salt: what posterior draws derive from.

    Returns:
        None if none of the decisions teaches anything.
    """
    learner, learned = make_learner(spec, salt=salt), 0
    for joined in decisions:
        if not comparable(joined):
            continue
        record = whole_record(joined.record)
        rescored = joined if rescorer is None else _rescored(joined, record, rescorer)
        try:
            catalogue = catalogue_of(record.catalogue)
            if learner.by_row:
                for row in taught_rows(rescored, spec, catalogue):
                    learner.learn_row(row)
            else:
                learner.learn(list(taught_interactions(rescored, spec, catalogue)))
        except BanditloopError:  # a decision that this model refuses teaches the live one nothing
            continue
        learned += len(joined.slots)

    if not learned:
        return None
    model = TrainedModel(spec_bytes=spec.encoded, learned=learned, checkpoint=learner.checkpoint())
    # As the service does: it goes on from the checkpoint.
    resumed = make_learner(spec, salt=salt, checkpoint=model.checkpoint)
    return TaughtAgain(model, resumed.snapshot(f"{learned}-0"))


def _rescored(joined: JoinedDecision, record: DecisionRecord, rescorer: Rescorer) -> JoinedDecision:
    scores = rescorer.scores(record, position_ms(joined.position))
    encoded = {name: values.astype("<f4").tobytes() for name, values in scores.items()}
    return msgspec.structs.replace(joined, record=msgspec.structs.replace(record, scores=encoded))
