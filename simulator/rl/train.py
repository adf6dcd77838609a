"""PPO through RLlib's new API stack, on RecSession-v0.

It makes a network that ``bandits.rl.network`` serves.

Schulman et al. 2017 (arXiv:1707.06347), with generalised advantages (arXiv:1506.02438). ``gamma``
is the knob between myopic (0: only a choice's own reward counts) and long-term (towards 1: so does
what follows it in its session).
"""

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from bandits.errors import ReplayError, SnapshotError
from bandits.exploration import Softmax
from bandits.rl.config import RlConfig
from bandits.rl.feature_schema import FeatureSchema
from bandits.rl.network import Network, encode_network
from bandits.types import Float32
from policies.artifacts.learner_model import TrainedModel
from policies.spec import PolicySpec
from simulator.parallel import join_ray
from simulator.rl.env import ENV_ID, RecSession, session_world
from simulator.rl.network import SharedScorer
from simulator.sessions.world import USE, SessionWorld

BATCH, MINIBATCH, EPOCHS = 2048, 256, 8
ENVS = 32
"""Sessions that one env runner steps together."""
CHECKPOINT = "checkpoint.safetensors"
ITERATIONS_PER_SEED = 10_000
"""Iterations for which a seed has chance of its own.

A training that resumes does not meet its old sessions again.
"""


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of a training.

    Attributes:
        world_seed: Seed of the world.
        seed: Seed of weights and sessions.
        steps: How many decisions are made in all.
        env_runners: How many Ray actors play; 0: this process does.
        data: The folder or URI of the data set whose users play, in the world ``data``.
        digest: Of that data set: a training does not go on with another one.
        sources: Those that propose there; none for the usual.
    """

    world: str = "satiation"
    world_seed: int = 0
    seed: int = 0
    steps: Annotated[int, msgspec.Meta(ge=1)] = 120_000
    gamma: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.97
    lambda_: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.9
    learning_rate: Annotated[float, msgspec.Meta(gt=0)] = 2e-3
    entropy: Annotated[float, msgspec.Meta(ge=0)] = 0.003
    width: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 32
    env_runners: Annotated[int, msgspec.Meta(ge=0)] = 0
    data: str = ""
    digest: str = ""
    sources: list[str] = []

    @property
    def arguments(self) -> dict[str, Any]:
        """What ``RecSession`` makes its world of."""
        return {
            "world": self.world,
            "world_seed": self.world_seed,
            "data": self.data,
            "sources": self.sources,
        }

    def make_world(self) -> SessionWorld:
        """Return the world that is trained in."""
        return session_world(self.world, self.world_seed, self.data, self.sources)


class TrainingPoint(msgspec.Struct, frozen=True):
    """An iteration's end.

    Attributes:
        steps: Decisions so far.
        session_return: Mean return of the sessions that ended lately.
        session_length: Mean number of their decisions.
    """

    steps: int
    session_return: float
    session_length: float
    entropy: float


class TrainedNetwork(msgspec.Struct, frozen=True):
    """The trained network, and how the training went."""

    training: Training
    network: Network
    curve: list[TrainingPoint]

    def spec(
        self, name: str = "sessions", *, temperature: float = 1.0, floor: float = 0.01
    ) -> PolicySpec:
        """Return a policy that serves the network.

        Args:
            name: The policy's name.
            temperature: Temperature of its softmax.
            floor: Its floor.
        """
        features = FeatureSchema(self.network.names).digest
        return PolicySpec(
            name,
            kind="rl",
            use=list(USE),
            learner=RlConfig(features=features),
            exploration=Softmax(temperature),
            floor=floor,
        )

    def model(self, spec: PolicySpec) -> TrainedModel:
        """Return the model for a file, a warm start, or an evaluation."""
        learned = self.curve[-1].steps if self.curve else 0
        network = encode_network(self.network, learned)
        return TrainedModel(spec_bytes=spec.encoded, learned=learned, checkpoint=network, rows=None)


def train_rl(
    training: Training,
    *,
    folder: Path | None = None,
    resume: bool = False,
    progress: Callable[[TrainingPoint], None] = lambda _: None,
    address: Literal["local", "auto"] | str = "local",  # noqa: PYI051 - HOST:PORT
) -> TrainedNetwork:
    """Train a network.

    Args:
        training: What is trained, and how.
        folder: Where a checkpoint is left after every iteration.
        resume: Whether to go on from the checkpoint in ``folder``.
        progress: Told of every iteration's end.
        address: The Ray cluster.

    Raises:
        ReplayError: There is nothing to resume from, or no Ray cluster at ``address``.
        SnapshotError: The checkpoint is damaged, has numbers that are not finite, or is of another
            training.
        InvalidFieldError: There is no such world.
    """
    world = training.make_world()
    held, curve = _read(folder, training, len(world.schema)) if resume else ({}, [])

    # Whatever its env runners, RLlib would join any cluster it finds.
    join_ray(address)
    with _algorithm(training, started=len(curve)) as algorithm:
        if held:
            algorithm.learner_group.foreach_learner(lambda learner, **_: _restore(learner, held))
            algorithm.env_runner_group.sync_weights(
                from_worker_or_learner_group=algorithm.learner_group
            )

        done = curve[-1].steps if curve else 0
        while done < training.steps:
            result = algorithm.train()
            played = result["env_runners"]
            done += int(played["num_env_steps_sampled"])
            curve.append(
                TrainingPoint(
                    done,
                    float(played.get("episode_return_mean", math.nan)),
                    float(played.get("episode_len_mean", math.nan)),
                    float(result["learners"][DEFAULT_MODULE_ID]["entropy"]),
                )
            )

            if folder is not None:
                states = algorithm.learner_group.foreach_learner(
                    lambda learner, **_: _state(learner)
                )
                _write(folder, training, next(iter(states)).get(), curve)
            progress(curve[-1])

        arrays = served_arrays(algorithm.get_module().arrays(), world)
    return TrainedNetwork(training, Network.of(world.schema.names, arrays), curve)


def served_arrays(
    arrays: Mapping[str, Float32], world: SessionWorld
) -> dict[str, NDArray[np.floating]]:
    """Return a network's arrays for features as a service sees them, which nothing divides.

    Args:
        arrays: the trained network's.
        world: it was trained in.
    """
    return {**arrays, "embed": arrays["embed"] / np.reshape(world.scale, (-1, 1))}


@contextmanager
def _algorithm(training: Training, *, started: int) -> Iterator[PPO]:
    """Make RLlib's algorithm; ``started``: the iterations that were done before."""
    torch.set_num_threads(1)
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)
    logging.getLogger("ray.rllib.algorithms.algorithm_config").setLevel(logging.ERROR)

    config = (
        PPOConfig()
        .environment(
            f"{RecSession.__module__}:{ENV_ID}",
            env_config=training.arguments,
        )
        .env_runners(num_env_runners=training.env_runners, num_envs_per_env_runner=ENVS)
        .learners(num_learners=0)
        .training(
            gamma=training.gamma,
            lambda_=training.lambda_,
            lr=training.learning_rate,
            train_batch_size_per_learner=BATCH,
            minibatch_size=MINIBATCH,
            num_epochs=EPOCHS,
            entropy_coeff=training.entropy,
            clip_param=0.2,
            use_kl_loss=False,
            vf_loss_coeff=0.5,
            vf_clip_param=math.inf,
            grad_clip=None,
        )
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=SharedScorer, model_config={"width": training.width}
            )
        )
        .debugging(seed=ITERATIONS_PER_SEED * training.seed + started, log_level="ERROR")
    )

    algorithm = config.build_algo()
    try:
        yield algorithm
    finally:
        algorithm.stop()


def _state(learner: Any) -> dict[str, Any]:
    """Return weights, and the moments of Adam, as arrays by name."""
    module, optimizer = learner.module[DEFAULT_MODULE_ID], learner.get_optimizer(DEFAULT_MODULE_ID)
    arrays = {
        f"module.{name}": tensor.detach().numpy().copy()
        for name, tensor in module.state_dict().items()
    }
    for number, moments in optimizer.state_dict()["state"].items():
        for name, tensor in moments.items():
            arrays[f"adam.{number}.{name}"] = np.array(tensor.numpy())
    return arrays


def _restore(learner: Any, held: dict[str, Any]) -> None:
    """Put the arrays of ``_state`` back."""
    module, optimizer = learner.module[DEFAULT_MODULE_ID], learner.get_optimizer(DEFAULT_MODULE_ID)

    weights = {
        name.removeprefix("module."): torch.tensor(array)
        for name, array in held.items()
        if "module." in name
    }
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise SnapshotError(
            f"{CHECKPOINT} is of another network: {' '.join(str(error).split())}", "module"
        ) from error

    state: dict[int, dict[str, Any]] = {}
    for name, array in held.items():
        if name.startswith("adam."):
            _, number, kind = name.split(".")
            state.setdefault(int(number), {})[kind] = torch.tensor(array)
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def _write(
    folder: Path, training: Training, state: dict[str, Any], curve: list[TrainingPoint]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {
        "training": msgspec.json.encode(training).decode(),
        "curve": msgspec.json.encode(curve).decode(),
    }

    # Whoever reads sees the whole of the last checkpoint or of this one.
    fresh = folder / f".{CHECKPOINT}"
    save_file(state, fresh, metadata)
    fresh.replace(folder / CHECKPOINT)


def _read(
    folder: Path | None, training: Training, features: int
) -> tuple[dict[str, Any], list[TrainingPoint]]:
    """Return the arrays of a checkpoint, and the curve until then.

    Raises:
        ReplayError, SnapshotError: See ``train_rl``.
    """
    if folder is None or not (folder / CHECKPOINT).is_file():
        raise ReplayError(f"there is no {CHECKPOINT} in {folder} to resume from", "resume")

    path = folder / CHECKPOINT
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        before = msgspec.json.decode(metadata.get("training", ""), type=Training)
        curve = msgspec.json.decode(metadata.get("curve", ""), type=list[TrainingPoint])
    except (SafetensorError, OSError, msgspec.MsgspecError) as error:
        raise SnapshotError(f"{path} is damaged: {error}", "checkpoint") from error

    # A training that resumes may be longer, be played by other processes, and its data set be
    # elsewhere; all else is the same.
    free: dict[str, Any] = {"steps": 0, "env_runners": 0, "data": ""}
    if msgspec.structs.replace(before, **free) != msgspec.structs.replace(training, **free):
        other = json.dumps(msgspec.to_builtins(before))
        raise SnapshotError(f"{path} is of another training: {other}", "checkpoint")

    if wrong := sorted(name for name, array in held.items() if not np.isfinite(array).all()):
        raise SnapshotError(f"{path}: {wrong[0]} holds numbers that are not finite", "checkpoint")
    shape = held.get("module.embed.weight", np.zeros((0, 0))).shape
    if shape != (training.width, features):
        raise SnapshotError(
            f"{path} scores actions of {shape[-1]} features, and this world's have {features}",
            "checkpoint",
        )
    return held, curve
