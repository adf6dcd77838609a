"""PPO on RLlib, for a few iterations: a network comes out that numpy scores as torch does, and a training goes on."""

import msgspec
import numpy as np
import pyarrow as pa
import pytest
import ray
import torch
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from bandits.errors import InvalidFieldError, ReplayError, SnapshotError
from bandits.rl.network import Network, RlScores
from policies.artifacts.learner_model import decode_trained
from policies.candidate_pool import explicit_pool
from policies.data.writer import write_data_set
from policies.sources import RlScorer, SourceRequest
from policies.spec import load_spec, spec_of
from serve_app.cli.train import app
from simulator.rl import judging
from simulator.rl.env import RecSession, session_world
from simulator.rl.experiment import BANDIT, MYOPIC, RL, SessionCell, ratios, run_session_cell
from simulator.rl.judging import CHANCE, SessionsEarned
from simulator.rl.network import SharedScorer
from simulator.rl.train import CHECKPOINT, Training, served_arrays, train_rl

# Warnings of ray and torch, at start; and Ray starts several times
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]
TRAINING = Training(world="satiation", world_seed=3, seed=1, steps=2048, env_runners=0)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One Ray for all: RLlib does not work without."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return folder, train_rl(TRAINING, folder=folder)


def module_of(env: RecSession, width: int, seed: int) -> SharedScorer:
    torch.manual_seed(seed)
    module = SharedScorer(
        observation_space=env.observation_space,
        action_space=env.action_space,
        model_config={"width": width},
    )
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """A data set: even users want even items, six of them in two sessions; prices are in cents."""
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{item}", 86_400_000 * (1 + step // 3) + 60_000 * step + user)
        for user in range(60)
        for step, item in enumerate(rng.permutation(np.arange(user % 2, 30, 2))[:6].tolist())
    ]
    user, item, time_ms = zip(*rows, strict=True)
    ids = [f"i{item}" for item in range(30)]
    folder = tmp_path_factory.mktemp("crowd") / "data"
    write_data_set(
        folder,
        pa.table({"user": user, "item": item, "time": pa.array(time_ms, pa.int64())}),
        items=pa.table({"id": ids, "price": [1e4 + 100.0 * at for at in range(30)]}),
    )
    return str(folder)


@pytest.mark.parametrize(("world", "width"), [("satiation", 32), ("small", 5), ("data", 8)])
def test_numpy_scores_as_torch_does(world, width, crowd):
    """On real observations, for networks far from their start: within 1e-5 of the largest score.

    A service sees features as they are, and the network was trained on such as are divided.
    """
    env = RecSession(world, 1, crowd if world == "data" else "")
    module = module_of(env, width, 2)
    arrays = served_arrays(module.arrays(), env.world)
    scores = RlScores(Network.of(env.world.schema.names, arrays))
    observation, _ = env.reset(seed=0)
    for step in range(50):
        count = int(observation["mask"].sum())
        batch = {"obs": {name: torch.tensor(each)[None] for name, each in observation.items()}}
        with torch.no_grad():
            theirs = module._forward(batch)["action_dist_inputs"][0].numpy()
        served = observation["features"][:count].astype(np.float64) * env.world.scale
        ours = scores.of_matrix(served)
        assert np.abs(ours - theirs[:count]).max() <= 1e-5 * max(1.0, np.abs(ours).max())
        assert (theirs[count:] == theirs.min()).all() or count == len(theirs)
        observation, _, over, cut, _ = env.step(np.int64(step % count))
        if over or cut:
            observation, _ = env.reset()


def test_training_leaves_a_network_that_is_served(trained):
    folder, out = trained
    assert [point.steps for point in out.curve] == sorted(point.steps for point in out.curve)
    assert out.curve[-1].steps >= TRAINING.steps
    spec = out.spec()
    model = out.model(spec)
    assert model.spec() == spec
    assert model.learned == out.curve[-1].steps
    assert (folder / CHECKPOINT).exists()
    assert any(
        np.frombuffer(data, "<f4").any()
        for name, data in out.network.arrays.items()
        if name == "score"
    )


@pytest.mark.slow
def test_a_training_goes_on_from_its_checkpoint(trained, tmp_path):
    """With its weights, moments and curve; it does not begin again."""
    folder, first = trained
    held = load_file(folder / CHECKPOINT)
    assert {name.split(".")[0] for name in held} == {"module", "adam"}
    longer = msgspec.structs.replace(TRAINING, steps=first.curve[-1].steps + 1)
    on = train_rl(longer, folder=folder, resume=True)
    assert on.curve[: len(first.curve)] == first.curve
    assert len(on.curve) == len(first.curve) + 1
    assert on.curve[-1].entropy < np.log(12)
    after = load_file(folder / CHECKPOINT)
    assert after["adam.0.step"] > held["adam.0.step"]
    unchanged = train_rl(longer, folder=folder, resume=True)
    assert unchanged.network == on.network


@pytest.mark.parametrize("what", ["NaN", "another width", "another world", "junk", "nothing"])
def test_a_checkpoint_that_does_not_fit_is_refused(trained, tmp_path, what):
    folder, _ = trained
    held, wanted = load_file(folder / CHECKPOINT), TRAINING
    from safetensors import safe_open  # noqa: PLC0415

    with safe_open(folder / CHECKPOINT, "np") as file:
        said = file.metadata()
    if what == "NaN":
        held["module.own.weight"][0, 0] = np.nan
    elif what == "another width":
        held["module.embed.weight"] = held["module.embed.weight"][:, :-1].copy()
    elif what == "another world":
        wanted = msgspec.structs.replace(TRAINING, world="small")
    save_file(held, tmp_path / CHECKPOINT, said)
    if what == "junk":
        (tmp_path / CHECKPOINT).write_bytes(b"junk")
    elif what == "nothing":
        (tmp_path / CHECKPOINT).unlink()
    with pytest.raises(ReplayError if what == "nothing" else SnapshotError) as refused:
        train_rl(wanted, folder=tmp_path, resume=True)
    assert refused.value.target == ("resume" if what == "nothing" else "checkpoint")


@pytest.mark.slow
def test_the_command_writes_a_model_and_a_spec_that_serves_it(tmp_path):
    """With an env runner of its own, over Ray."""
    options = [
        "rl",
        "--world",
        "small",
        "--steps",
        "100",
        "--width",
        "4",
        "--out",
        str(tmp_path),
        "--env-runners",
        "1",
    ]
    done = CliRunner().invoke(app, options, catch_exceptions=False)
    assert done.exit_code == 0
    spec = load_spec(tmp_path / "policy.yaml")
    assert decode_trained((tmp_path / "model").read_bytes()).spec() == spec
    assert spec.kind == "rl"
    assert len(msgspec.json.decode((tmp_path / "curve.json").read_bytes())) == 1


def test_sessions_of_ones_own_data_make_a_source(crowd, tmp_path, monkeypatch):
    """The line that is written is one of a policy's sources; its scores are those of the model."""
    monkeypatch.setattr(judging, "SESSIONS", 10)
    options = ["rl", "--data", crowd, "--steps", "100", "--width", "4", "--env-runners", "0"]
    done = CliRunner().invoke(app, [*options, "--out", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    rows = msgspec.json.decode((tmp_path / "judged.json").read_bytes(), type=list[SessionsEarned])
    assert [row.policy for row in rows] == ["sessions", "item_knn", "popular", CHANCE]

    (line,) = msgspec.yaml.decode((tmp_path / "source.yaml").read_bytes())
    policy = spec_of(
        {
            "name": "home",
            "artifact": "none",
            "sources": [{"kind": "artifact", "name": "popular"}, line],
        }
    )
    scorer = RlScorer(policy.sources[1])
    world = session_world("data", 0, crowd)
    pool = explicit_pool(world.session(np.random.default_rng(1)).request().actions)
    scores = scorer.score_actions(
        world.catalogue, SourceRequest(context={"place": 0.0}), pool.ids, None, pool.scores
    )
    assert scores.shape == (len(pool.ids),)
    assert np.isfinite(scores).all()
    assert len(set(scores.tolist())) > 1

    # A training does not go on with the sessions of another data set.
    other = Training(world="data", data=crowd, digest="another", width=4)
    with pytest.raises(SnapshotError, match="is of another training"):
        train_rl(other, folder=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--data", "x", "--world", "small"], "leave --world out"),
        (["--sources", "popular"], "--sources go with --data"),
    ],
)
def test_sessions_are_of_a_world_or_of_a_data_set(more, said):
    done = CliRunner().invoke(app, ["rl", *more])
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.slow
def test_the_experiment_in_small():
    """Every policy of it, in the world whose optimum is known; too short to learn much."""
    cells = [SessionCell("small", 0, policy, 2048, 20) for policy in (RL, BANDIT, MYOPIC)]
    results = [run_session_cell(cell) for cell in cells]
    assert [each.against for each in ratios(results)] == [BANDIT, MYOPIC]
    assert ratios(results)[0].value == pytest.approx(results[0].mean / results[1].mean)
    for name, each in zip((RL, BANDIT), results, strict=False):
        assert 0.0 < each.exact[name] <= each.exact["optimum"]
    assert results[0].curve
    with pytest.raises(InvalidFieldError, match="no policy 'best'"):
        run_session_cell(SessionCell("small", 0, "best", 1, 1))
