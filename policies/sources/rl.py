"""A policy of kind rl as a source: it scores a decision's actions in context, and proposes none.

In a mixture it is one of the actions, so that the bandit over sources learns when the long-term
policy is worth it; in a blend its score is a feature. Its scores are logged with the decision like
any source's: to derive the decision again takes no network.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bandits.errors import ArtifactError, SourceError
from bandits.log.codec import digest
from bandits.rl.network import decode_network
from bandits.types import Float32
from bandits.values import MAX_NUMBER, FeatureMap
from policies.artifacts.learner_model import decode_trained
from policies.features import featurise
from policies.items.catalogue import Catalogue
from policies.sources.base import SourceRequest
from policies.spec import RlSource


class RlScorer:
    """The network in a file that ``banditloop train rl`` wrote.

    Raises:
        ArtifactError: the file cannot be read, or is not the one that the spec names.
        SnapshotError: it is damaged.
    """

    def __init__(self, config: RlSource) -> None:
        self.name = config.name
        try:
            data = Path(config.model).read_bytes()
        except OSError as error:
            raise ArtifactError(
                f"sources: model of {config.name}: {config.model} cannot be read"
                f" ({error.strerror}): banditloop train rl makes one",
                "sources.model",
            ) from error
        if digest(data) != config.digest:
            raise ArtifactError(
                f"{config.model} has the digest {digest(data)}, and source {config.name} names"
                " another",
                "sources.digest",
            )
        model = decode_trained(data)
        self._spec, self._network = model.spec(), decode_network(model.checkpoint)

    def score_actions(
        self,
        catalogue: Catalogue,
        request: SourceRequest,
        ids: Sequence[str],
        features: Sequence[FeatureMap | None] | None,
        scores: Mapping[str, Float32],
    ) -> Float32:
        """Return the network's score of each action, float32[K].

        Args:
            catalogue: what the decision's record names.
            request: the features of the decision.
            ids: the K actions.
            features: the request's own features of each action; None if it sent none.
            scores: by candidate source, float32[K], NaN where it has none.

        Raises:
            SourceError: features are so large that a score is no number.
        """
        logits = self._network.scores(
            *featurise(self._spec, catalogue, request.context, ids, features, scores)
        )
        if not (np.abs(logits) <= MAX_NUMBER).all():
            raise SourceError(f"a score is a number up to {MAX_NUMBER:g}", "scores")
        return logits.astype(np.float32)
