"""How often a policy acts by what it has learned: after every row, LinUCB is that of its paper."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from bandits.errors import ReplayError
from serve_app.cli.main import app

ROWS, ACTIONS, D = 160, 4, 3
ALPHA = 0.7
SPEC = """
name: linucb
use: [context, item]
learner:
  {kind: ridge, action_bias: false, intercept: false, interactions: [[context, item]], max_features: 64}
exploration: {kind: linucb, alpha: 0.7}
floor: 0.0
"""


@pytest.fixture(scope="module")
def logged():
    """Contexts, choices made at random, rewards: the best action depends on the context."""
    rng = np.random.default_rng(5)
    contexts = rng.normal(size=(ROWS, D)).round(3)
    chosen = rng.integers(0, ACTIONS, ROWS)
    truth = rng.normal(size=(ACTIONS, D))
    rewards = (np.einsum("nd,nd->n", contexts, truth[chosen]) + 0.3 * rng.normal(size=ROWS)).round(
        3
    )
    return contexts, chosen, rewards


@pytest.fixture(scope="module")
def log(logged, tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "log.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["x0", "x1", "x2", "shown", "p", "reward"])
        writer.writerows([*x, f"a{a}", 1 / ACTIONS, r] for x, a, r in zip(*logged, strict=True))
    return path


def features(x, action) -> np.ndarray:
    """The context, the action, and each with each."""
    own = np.eye(ACTIONS)[action]
    return np.concatenate([x, own, np.outer(own, x).ravel()])


def by_the_paper(logged, publish_every: int) -> tuple[np.ndarray, np.ndarray]:
    """Return by row its action's probability and its reward (Li et al. 2010, arXiv:1003.0146, l2 = 1).

    What is learned is acted upon ``publish_every`` rows at a time.
    """
    d = D + ACTIONS + D * ACTIONS
    a, b = np.eye(d), np.zeros(d)
    inverse, weights = np.eye(d), np.zeros(d)
    mass = np.zeros(ROWS)
    for number, (x, chosen, reward) in enumerate(zip(*logged, strict=True)):
        z = np.array([features(x, action) for action in range(ACTIONS)])
        bounds = z @ weights + ALPHA * np.sqrt(np.einsum("kd,de,ke->k", z, inverse, z))
        best = bounds >= bounds.max() - 1e-12
        mass[number] = best[chosen] / best.sum()
        a += np.outer(z[chosen], z[chosen])
        b += reward * z[chosen]
        if (number + 1) % publish_every == 0:
            inverse = np.linalg.inv(a)
            weights = inverse @ b
    return mass, logged[2]


def replayed(log, tmp_path, method: str, *options: str) -> dict:
    (tmp_path / "spec.yaml").write_text(SPEC)
    columns = "{action: shown, propensity: p, action_ids: [a0, a1, a2, a3], context: [x0, x1, x2]}"
    command = [
        "replay",
        "--log",
        str(log),
        "--format",
        "csv",
        "--columns",
        columns,
        "--method",
        method,
        *options,
    ]
    done = CliRunner().invoke(
        app, [*command, "--policy", str(tmp_path / "spec.yaml"), "--out", str(tmp_path / "r.json")]
    )
    assert done.exit_code == 0, done.output
    return json.loads((tmp_path / "r.json").read_text())["results"][0]


@pytest.mark.parametrize("every", [1, 7, 100])
def test_linucb_is_that_of_the_paper(logged, log, tmp_path, every):
    options = () if every == 100 else ("--publish-every", str(every))
    result = replayed(log, tmp_path, "progressive", *options)
    mass, rewards = by_the_paper(logged, every)
    assert result["learned"]["ips"] == pytest.approx(
        float(np.mean(ACTIONS * mass * rewards)), abs=1e-9
    )
    assert result["learned"]["snips"] == pytest.approx(float(mass @ rewards / mass.sum()), abs=1e-9)
    said = "every row" if every == 1 else f"every {every} rows"
    assert f"acts by what it has learned after {said}" in result["notes"]


def test_it_earns_more_when_it_acts_by_every_row(log, tmp_path):
    """The option has an effect, by both methods."""
    for method in ("progressive", "rejection"):
        often, seldom = (
            replayed(log, tmp_path, method, "--publish-every", every) for every in ("1", "1000")
        )
        name = "snips" if method == "progressive" else "mean_accepted_reward"
        assert often["learned"][name] > seldom["learned"][name] + 0.2


@pytest.mark.parametrize(
    ("method", "policy"),
    [
        ("ope", "uniform"),
        ("sessions", "uniform"),
        ("progressive", "{kind: vw, args: --cb_explore_adf}"),
    ],
)
def test_it_is_refused_where_it_would_have_no_effect(log, method, policy):
    command = [
        "replay",
        "--log",
        str(log),
        "--format",
        "csv",
        "--method",
        method,
        "--policy",
        policy,
    ]
    done = CliRunner().invoke(
        app, [*command, "--columns", "{reward: reward, propensity: p}", "--publish-every", "1"]
    )
    assert isinstance(done.exception, ReplayError)
    assert "--publish-every needs a policy's own spec" in done.exception.message
