"""A policy trained elsewhere, by reinforcement learning over whole sessions, served by numpy alone.

One small network scores every action of a decision and sees the others through their mean (Deep
Sets, Zaheer et al. 2017, arXiv:1703.06114, equation 4), so it is permutation-equivariant and takes
any number of actions:

    h_k = relu(x_k embed + embed_bias)
    score_k = relu(h_k own + mean_j(h_j) others + bias) . score

It learns nothing from the log it is served on: ``banditloop train rl`` makes it, a warm start puts
it in place.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.errors import SnapshotError
from bandits.log.codec import MALFORMED
from bandits.rl.config import KIND, RlConfig
from bandits.rl.feature_schema import FeatureSchema
from bandits.types import ActionSet, Context, Float32, Float64, Interaction, Learner, Snapshot

ARRAYS = ("embed", "embed_bias", "own", "others", "bias", "score")


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``names``: the schema's. ``width``: h.

    ``arrays``: by name, little-endian float32, as ``shapes`` says.
    """

    names: list[tuple[str, str]]
    width: Annotated[int, msgspec.Meta(ge=1, le=1024)]
    arrays: dict[str, bytes]

    @classmethod
    def of(cls, names: Sequence[tuple[str, str]], arrays: Mapping[str, NDArray[Any]]) -> "Network":
        """Make a network of arrays of any float type.

        Args:
            names: the schema's (namespace, feature) pairs, without the intercept.
            arrays: one for each of ARRAYS, as ``shapes`` says; the length of ``bias`` is the width.
        """
        width = len(arrays["bias"])
        return cls(
            list(names), width, {name: arrays[name].astype("<f4").tobytes() for name in ARRAYS}
        )


class _Payload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A network, None before there is one, and the decisions it was trained on."""

    features: str
    network: Network | None = None
    learned: Annotated[int, msgspec.Meta(ge=0)] = 0


def shapes(features: int, width: int) -> Mapping[str, tuple[int, ...]]:
    """Return the shape of each array.

    Args:
        features: how many there are, the intercept among them.
        width: the number of hidden units.
    """
    return {
        "embed": (features, width),
        "embed_bias": (width,),
        "own": (width, width),
        "others": (width, width),
        "bias": (width,),
        "score": (width,),
    }


class RlScores:
    """The network, ready to score.

    Raises: SnapshotError: an array is missing, of another shape than the features and width ask
        for, or not finite.
    """

    def __init__(self, network: Network) -> None:
        self.schema = FeatureSchema(network.names)
        wanted = shapes(len(self.schema), network.width)
        if set(network.arrays) != set(wanted):
            raise SnapshotError(
                f"a network has arrays {sorted(wanted)}, not {sorted(network.arrays)}",
                "network.arrays",
            )
        self._arrays = {
            name: _array(name, network.arrays[name], shape) for name, shape in wanted.items()
        }

    def scores(self, context: Context, actions: ActionSet) -> Float64:
        """Return the score of each action, float64[K].

        They are computed in doubles: the actions' order changes the last digits at most.

        Args:
            context: features that all actions share; those outside the schema are left out.
            actions: K of them; each one's score depends on the features of all.
        """
        return self.of_matrix(self.schema.matrix(context, actions))

    def of_matrix(self, features: Float64) -> Float64:
        """Return float64[K] from the actions' features, float64[K, d]."""
        arrays = self._arrays
        hidden = np.maximum(features @ arrays["embed"] + arrays["embed_bias"], 0.0)
        shared = hidden.mean(axis=0) @ arrays["others"] + arrays["bias"]
        scores: Float64 = np.maximum(hidden @ arrays["own"] + shared, 0.0) @ arrays["score"]
        return scores


class RlModel:
    """The scores of a snapshot of kind ``rl``.

    Raises:
        SnapshotError: it is corrupt, or was made for other features than the spec names.
    """

    def __init__(self, config: RlConfig, snapshot: Snapshot) -> None:
        self.learned = snapshot.learned
        _, self._scores = _loaded(config, snapshot.payload)

    def scores(self, context: Context, actions: ActionSet) -> Float64:
        """Return the scores, float64[K]; all 0 before there is a network.

        Args:
            context: features that all actions share; those outside the schema are left out.
            actions: K of them; each one's score depends on the features of all.
        """
        return (
            np.zeros(len(actions))
            if self._scores is None
            else self._scores.scores(context, actions)
        )


class RlLearner(Learner):
    """Holds a network and hands it on. See Learner.

    Raises: SnapshotError: the checkpoint is corrupt, or was made for other features than the spec
        names.
    """

    def __init__(self, config: RlConfig, *, checkpoint: bytes | None = None) -> None:
        self._payload = checkpoint or msgspec.msgpack.encode(_Payload(config.features))
        self.learned, _ = _loaded(config, self._payload)

    def learn(self, interactions: Sequence[Interaction]) -> None:
        """Learn nothing: it was trained elsewhere."""

    def snapshot(self, position: str) -> Snapshot:
        """Return the network, whatever the position."""
        return Snapshot(KIND, position, self.learned, self._payload)

    def checkpoint(self) -> bytes:
        """Return the network."""
        return self._payload


def encode_network(network: Network, learned: int) -> bytes:
    """Return what an RlLearner starts from.

    Args:
        network: the network.
        learned: the decisions it was trained on.

    Raises:
        SnapshotError: the network cannot be served.
    """
    return msgspec.msgpack.encode(_Payload(RlScores(network).schema.digest, network, learned))


def decode_network(payload: bytes) -> RlScores:
    """Return the network in what ``encode_network`` wrote.

    Raises:
        SnapshotError: it is corrupt, or holds none.
    """
    decoded = _decode(payload)
    if decoded.network is None:
        raise SnapshotError("there is no network in it: banditloop train rl makes one", "network")
    return RlScores(decoded.network)


def _decode(payload: bytes) -> _Payload:
    try:
        return msgspec.msgpack.decode(payload, type=_Payload)
    except MALFORMED as error:
        raise SnapshotError(f"not a network: {error}", "payload") from error


def _loaded(config: RlConfig, payload: bytes) -> tuple[int, RlScores | None]:
    """Return how many decisions the network was trained on, and what scores with it."""
    decoded = _decode(payload)
    scores = None if decoded.network is None else RlScores(decoded.network)

    made_for = decoded.features if scores is None else scores.schema.digest
    if {made_for, decoded.features} != {config.features}:
        raise SnapshotError(
            f"the network was made for the features {made_for}, and this policy's are"
            f" {config.features}: train it with this schema, or put the network's into"
            " learner.features",
            "learner.features",
        )
    return decoded.learned, scores


def _array(name: str, data: bytes, shape: tuple[int, ...]) -> Float64:
    if len(data) != 4 * int(np.prod(shape)):
        raise SnapshotError(
            f"network.{name} is float32{list(shape)}, not {len(data)} bytes", f"network.{name}"
        )
    array: Float32 = np.frombuffer(data, "<f4").reshape(shape)
    if not np.isfinite(array).all():
        raise SnapshotError(f"network.{name} holds numbers that are not finite", f"network.{name}")
    return array.astype(np.float64)
