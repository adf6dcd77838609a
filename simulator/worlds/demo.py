"""The parts of the demo that need no server: training, baselines, ablations, figures."""

import asyncio
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.errors import ArtifactError, StartupError
from bandits.values import FeatureMap
from policies.artifacts import source_artifact as artifact
from policies.artifacts.profile_file import write_profiles
from policies.artifacts.profiles import Profiles
from policies.candidate_pool import Pool
from policies.items.catalogue import Catalogue
from policies.ranker import Ranker
from policies.requests import RankRequest
from policies.sources import load_sources
from policies.spec import PolicySpec
from policies.training.histories import histories_of
from simulator.worlds.loop import Timing, run_loop
from simulator.worlds.movielens import MovieLensWorld, movielens_data

Array = NDArray[np.float64]
CONTEXT_FIELDS = ("group",)
SALT = b"bench"
SOURCES = ("als", "item_knn", "deep", "popular")
BLENDED = ("als", "deep", "popular")
"""The sources of the example policy, whose candidates its prior is about."""
PROFILES = "profiles.parquet"
"""The name of the file of profiles in the folder of an artifact's versions."""
WINDOW = 2000
"""Rounds of the moving average in the picture."""


class MovieLensRequests:
    """MovieLens users asking for one item each, drawn uniformly. No feature identifies a user."""

    def __init__(self, world: MovieLensWorld) -> None:
        self.world = world

    def request(self, rng: np.random.Generator) -> RankRequest:
        """Return a user's request; the context is one of 10 groups, age band by gender."""
        user = self.world.draw_user(rng)
        known = self.world.context(user)
        return RankRequest(user_id=user, context={name: known[name] for name in CONTEXT_FIELDS})

    def reward(self, request: RankRequest, action_id: str, rng: np.random.Generator) -> float:  # noqa: ARG002
        """Return 1 if the user turns out to like the item, else 0.

        Args:
            request: The request, which names the user.
            action_id: The item's id in MovieLens.
            rng: Left as it is: nothing is drawn.
        """
        return self.world.reward(str(request.user_id), action_id)


@dataclass(frozen=True, eq=False)
class DemoBench:
    """A world, its trained sources, and every user's pool of candidates."""

    requests: MovieLensRequests
    trained: artifact.Artifact
    spec: PolicySpec
    pools: Mapping[str, Pool]

    @cached_property
    def catalogue(self) -> Catalogue:
        """The artifact's catalogue."""
        return Catalogue.of(self.trained.catalogue)

    def ablation(
        self,
        use: Sequence[str],
        *,
        rounds: int,
        seed: int,
        progress: Callable[[int], None] | None = None,
    ) -> Array:
        """Return the rewards of the same learner on the same pools, seeing some of the features.

        Args:
            use: Namespaces that the learner sees.
            rounds: How many times it chooses.
            seed: Seed of the run.
            progress: Told the number of rounds.
        """
        spec = msgspec.structs.replace(self.spec, use=list(use))

        run = run_loop(
            self.requests,
            spec,
            rounds=rounds,
            seed=seed,
            pools=self.pools,
            catalogue=self.catalogue,
            timing=Timing(),
            progress=progress,
        )
        return run.rewards

    def baselines(self, users: Sequence[str], seed: int) -> dict[str, Array]:
        """Return rewards of each source's best candidate, and of a random one of the pool.

        Args:
            users: The users of the run to compare with, in their order.
            seed: Seed of the random picks.
        """
        rng = np.random.default_rng([seed, 1])
        world = self.requests.world
        rewards = {
            name: np.array([best[user] for user in users]) for name, best in self.best.items()
        }

        picks = [
            self.pools[user].ids[int(rng.integers(len(self.pools[user].ids)))] for user in users
        ]
        rewards["random"] = np.array(
            [world.reward(user, pick) for user, pick in zip(users, picks, strict=True)]
        )
        return rewards

    @cached_property
    def best(self) -> dict[str, dict[str, float]]:
        """The reward of the source's best candidate, by source and user."""
        world = self.requests.world
        return {
            source.name: {
                user: world.reward(user, pool.ids[int(np.nanargmax(pool.scores[source.name]))])
                for user, pool in self.pools.items()
            }
            for source in self.spec.sources
        }


def load_world() -> MovieLensWorld:
    """Load MovieLens 100K, fetched, checked and imported if need be."""
    return MovieLensWorld.of(movielens_data())


def contexts_of_users(world: MovieLensWorld) -> dict[str, FeatureMap]:
    """Return what requests say of each user."""
    return {
        user: {name: world.context(user)[name] for name in CONTEXT_FIELDS} for user in world.users
    }


def train_movielens(world: MovieLensWorld, out: Path, *, seed: int, salt: bytes = SALT) -> str:
    """Fit the sources with a progress bar, write artifact and profiles, and return the version.

    Args:
        world: The users and their known ratings.
        out: Where both are written.
        seed: Seed of the training.
        salt: The key of the users' pseudonyms.
    """
    from policies.training.prior import make_prior
    from policies.training.train import progress_bars, run_training

    with progress_bars() as progress:
        run = run_training(
            world.train_events, world.catalogue, sources=SOURCES, seed=seed, progress=progress
        )
        made = make_prior(
            world.train_events,
            world.catalogue,
            sources=BLENDED,
            contexts=contexts_of_users(world),
            seed=seed,
            progress=lambda step, done, total: progress(f"prior: {step}", done, total),
        )
    if made.rows is None:
        raise ArtifactError(f"MovieLens has no prior: {made.reason}", "prior")
    version = artifact.write(replace(run.artifact, prior=made.rows.encoded), out)
    write_profiles(out / PROFILES, run.histories, salt=salt, data=world.digest, artifact=version)
    return version


def make_bench(world: MovieLensWorld, spec: PolicySpec) -> DemoBench:
    """Load the artifact that ``spec`` names and ask the sources once for every user.

    Args:
        world: The users.
        spec: The policy.
    """
    trained = artifact.load(Path(str(spec.artifact)))
    sources = list(load_sources(trained, spec.sources).values())
    profiles = Profiles.of(histories_of(world.train_events), SALT)
    ranker = Ranker(spec, sources, salt=SALT, profiles=profiles)

    async def ask() -> dict[str, Pool]:
        return {user: await ranker.pool(RankRequest(user_id=user)) for user in world.users}

    return DemoBench(MovieLensRequests(world), trained, spec, asyncio.run(ask()))


def ablations(
    spec: PolicySpec,
    uses: Mapping[str, Sequence[str]],
    rounds: int,
    seed: int,
    progress: Callable[[str, int], None],
) -> dict[str, Array]:
    """Return rewards of ``DemoBench.ablation`` by name, each in a fresh process.

    Args:
        spec: The policy.
        uses: Namespaces that the learner sees, by name.
        rounds: How many times each learner chooses.
        seed: Seed of the runs.
        progress: Told a name and its rounds done.

    Raises:
        StartupError: A process died.
    """
    context = multiprocessing.get_context("spawn")
    done = {name: context.Value("q", 0) for name in uses}
    answers = {name: context.Pipe(duplex=False) for name in uses}
    workers = [
        context.Process(
            target=_ablation,
            args=(spec, tuple(use), rounds, seed, done[name], answers[name][1]),
            daemon=True,
        )
        for name, use in uses.items()
    ]
    for worker in workers:
        worker.start()

    # A worker sends its rewards once, at its end.
    rewards: dict[str, Array] = {}
    while len(rewards) < len(uses):
        for name, (receiver, _) in answers.items():
            progress(name, done[name].value)
            if name not in rewards and receiver.poll(0.1):
                rewards[name] = np.frombuffer(receiver.recv_bytes())
                progress(name, rounds)
        if any(worker.exitcode not in {None, 0} for worker in workers):
            raise StartupError("a process of the comparison died: see what it printed above")

    for worker in workers:
        worker.join()
    return rewards


def _ablation(
    spec: PolicySpec, use: tuple[str, ...], rounds: int, seed: int, done: Any, answer: Any
) -> None:
    def report(count: int) -> None:
        done.value = count

    bench = make_bench(load_world(), spec)
    answer.send_bytes(bench.ablation(use, rounds=rounds, seed=seed, progress=report).tobytes())


@dataclass(slots=True, eq=False)
class Traffic:
    """The traffic of a drive, round by round.

    Attributes:
        users: The user of each round.
        rewards: The reward of each round.
        latencies_ms: The latency of each answer, in milliseconds.
        acknowledged: How many rewards were acknowledged.
    """

    users: list[str] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    unlogged: int = 0
    acknowledged: int = 0


STARTS = (2_000, 10_000)
"""Rounds from the first one on that a report has the mean reward of."""


def summary(rewards: Array) -> dict[str, float]:
    """Return the mean reward of the first rounds, overall, and over the last quarter of the rounds.

    A run of fewer rounds than one of STARTS has the mean of all of them.
    """
    return {
        **{f"first_{rounds}": float(rewards[:rounds].mean()) for rounds in STARTS},
        "overall": float(rewards.mean()),
        "last_quarter": float(rewards[-max(1, len(rewards) // 4) :].mean()),
    }


def percentiles(values: Sequence[float] | Array) -> dict[str, float]:
    """Return the median and the 99th percentile."""
    if not len(values):
        return {"p50": float("nan"), "p99": float("nan")}
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50": float(p50), "p99": float(p99)}


def draw_curves(curves: Mapping[str, Array], path: Path, title: str) -> None:
    """Draw moving averages of every policy's reward, as a PNG.

    Args:
        curves: Rewards by the policy's name.
        path: The picture.
        title: Its title.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure: Any
    figure, axes = plt.subplots(figsize=(9, 5), dpi=120)
    for name, rewards in curves.items():
        width = min(WINDOW, max(1, len(rewards) // 5))
        # At the start the mean is over what there is, so that the first decisions are seen, too.
        ends = np.arange(max(1, width // 10), len(rewards) + 1)
        sums = np.concatenate([[0.0], np.cumsum(rewards)])
        begins = np.maximum(ends - width, 0)
        axes.plot(
            ends,
            (sums[ends] - sums[begins]) / (ends - begins),
            label=name,
            linewidth=2.5 if name == "bandit" else 1.2,
        )

    axes.set_xlabel("round")
    axes.set_ylabel(f"mean reward, last {WINDOW:,} rounds")
    axes.set_title(title)

    # room for the legend
    axes.set_ylim(0, 1.2 * axes.get_ylim()[1])
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", ncols=4)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
