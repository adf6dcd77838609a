"""Worlds of known truth: it is right, bias shows, and where cells are run makes no difference."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from bandits.errors import InvalidFieldError
from bandits.exploration import EpsilonGreedy, Softmax
from policies.artifacts.prior import PriorDecision, PriorRows
from policies.spec import PRIOR_STRENGTH, Prior
from serve_app.cli.main import app
from simulator.ope.formulas import FORMULAS
from simulator.parallel import in_processes
from simulator.worlds.cell import (
    TargetEstimate,
    WorldCell,
    WorldCellResult,
    estimate_targets,
    rescaled,
    rows_of_log,
    run_world_cell,
)
from simulator.worlds.experiment import Experiment, run_experiment
from simulator.worlds.loop import run_loop
from simulator.worlds.presets import POLICIES, WORLDS, policy_named
from simulator.worlds.scores import ratio_of_sums, scores
from simulator.worlds.targets import (
    TARGETS,
    BestTargetKind,
    KnownTarget,
    SoftmaxTargetKind,
    Truth,
    UniformTargetKind,
    truth_of,
)

EPSILON = POLICIES["ridge-epsilon"]
DRAWS = 40_000
ROUNDS = 250


@pytest.mark.parametrize("kind", TARGETS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("name", ["steady", "drift", "skewed"])
def test_the_truth_is_what_the_target_earns_when_it_is_played(name, kind):
    """The world's own rounds and rewards agree: within 4 standard errors, false alarm 6e-5 each."""
    rng, rounds = np.random.default_rng(7), 500
    world = WORLDS[name].build(3, rounds)
    target = KnownTarget(kind, world)
    truth = truth_of(target, world, rounds, seed=3)
    contexts, times = world.contexts(DRAWS, rng), np.arange(DRAWS) % rounds + 1
    pmfs = target.pmfs(contexts)
    chosen = (rng.random((DRAWS, 1)) > pmfs.cumsum(axis=1)[:, :-1]).sum(axis=1)
    means = world.means(contexts, times)[np.arange(DRAWS), chosen]
    spread = WORLDS[name].spread
    earned = (rng.random(DRAWS) < means) * np.exp(spread * rng.normal(size=DRAWS) - spread**2 / 2)
    stderr = np.hypot(earned.std() / np.sqrt(DRAWS), truth.stderr)
    assert abs(earned.mean() - truth.value) < 4 * stderr
    assert truth.stderr < 0.002


@pytest.mark.parametrize("name", ["drift", "skewed"])
def test_a_world_pays_what_its_means_say(name):
    """A request's reward, round by round, against ``means``: within 4 standard errors."""
    rng, rounds = np.random.default_rng(1), 2000
    world = WORLDS[name].build(2, rounds)
    requests, earned, expected = [], [], []
    for _ in range(rounds):
        request = world.request(rng)
        requests.append(request.context)
        expected.append(world.expected(request)[1])
        earned.append(world.reward(request, "a1", rng))
    means = world.means(world.vectors(requests), np.arange(1, rounds + 1))[:, 1]
    assert np.allclose(means, expected, rtol=1e-12)
    left = np.array(earned) - means
    assert abs(left.mean()) < 4 * left.std() / np.sqrt(rounds)


def test_drift_changes_what_a_fixed_target_earns():
    """A quarter of a circle later the first best action is any action: the truth is the average."""
    world = WORLDS["drift"].build(0, 100)
    best = KnownTarget(BestTargetKind(), world)
    contexts = world.contexts(20_000, np.random.default_rng(0))
    first, last = (
        float((best.pmfs(contexts) * world.means(contexts, np.full(20_000, at))).sum(axis=1).mean())
        for at in (0, 100)
    )
    truth = truth_of(best, world, 100, seed=0).value
    assert first > 0.75
    assert abs(last - 0.5) < 0.15
    assert last < truth < first


def test_targets_are_the_distributions_they_are_named_for():
    means = np.random.default_rng(0).random((50, 5))
    means[0, 1] = means[0, 2] = 2.0  # a tie
    for kind, oracle in (
        (SoftmaxTargetKind(0.3), Softmax(0.3)),
        (BestTargetKind(0.2), EpsilonGreedy(0.2)),
    ):
        assert np.allclose(kind.pmfs(means), [oracle.pmf(row, 0) for row in means], atol=1e-15)
    assert (UniformTargetKind().pmfs(means) == 0.2).all()


def test_a_log_of_a_run_holds_every_round_in_order():
    """Although rewards are late, and some would come after the last round."""
    cell = WorldCell(WORLDS["delayed"], EPSILON, 0, 150, TARGETS)
    world, spec = cell.world.build(0, 150), cell.world.policy(EPSILON)
    run = run_loop(world, spec, rounds=150, seed=0, timing=cell.world.timing, settle=True)
    rows = rows_of_log(run.log, spec)
    assert [row.event_id for row in rows] == [f"0.{number}" for number in range(150)]
    # the window is 8 mean delays: in this run none is late
    assert [row.reward for row in rows] == run.rewards.tolist()
    assert run.fold.learned == 150


def test_a_run_begins_with_the_prior_that_it_is_given():
    """As strongly as the spec says; one that wants none has a log without it."""
    rows = PriorRows.of(
        [PriorDecision.of({}, ["a", "b"], {}, np.array([1.0, 0.0], np.float32))] * 50
    )
    cell = WorldCell(WORLDS["delayed"], EPSILON, 0, 150, TARGETS)
    world, spec = cell.world.build(0, 20), cell.world.policy(EPSILON)
    runs = {
        strength: run_loop(
            world, msgspec.structs.replace(spec, prior=said), rounds=20, seed=0, prior=rows
        )
        for strength, said in ((0.5, Prior(0.5)), (PRIOR_STRENGTH, msgspec.UNSET))
    }
    for strength, run in runs.items():
        assert run.fold.prior.taught.strength == strength
        assert run.fold.prior.taught.rows == 100
    without = run_loop(
        world, msgspec.structs.replace(spec, prior="none"), rounds=20, seed=0, prior=rows
    )
    assert without.fold.prior is None


@pytest.fixture(scope="module")
def steady() -> list[tuple[list, list[KnownTarget], Truth]]:
    """Of 8 seeds: the rows of a log, the softmax target, its truth."""
    out = []
    for seed in range(8):
        world, spec = WORLDS["steady"].build(seed, ROUNDS), WORLDS["steady"].policy(EPSILON)
        run = run_loop(
            world, spec, rounds=ROUNDS, seed=seed, timing=WORLDS["steady"].timing, settle=True
        )
        target = KnownTarget(SoftmaxTargetKind(), world)
        out.append((rows_of_log(run.log, spec), [target], truth_of(target, world, ROUNDS, seed)))
    return out


def errors(steady, change=list) -> np.ndarray:
    """Of IPS, by seed; ``change``: what is done to the rows before."""
    found = [
        (estimate_targets(change(rows), targets, "as joined"), truth.value)
        for rows, targets, truth in steady
    ]
    return np.array(
        [
            next(each.value for each in said if each.estimator == "ips") - truth
            for said, truth in found
        ]
    )


def test_wrong_propensities_show_as_bias(steady):
    """IPS is unbiased on the log, and not if all propensities were 1/K: 4 standard errors."""

    def uniform(rows):
        return [replace(row, pmf=np.full(5, 0.2), propensity=0.2) for row in rows]

    right, wrong = errors(steady), errors(steady, uniform)
    assert abs(right.mean()) < 4 * right.std(ddof=1) / np.sqrt(8)
    assert wrong.mean() > 4 * wrong.std(ddof=1) / np.sqrt(8)
    assert wrong.mean() > 0.1


def test_rewards_that_are_lost_are_made_up_for(steady):
    """Without 30% of the rewards IPS misses 30% of the truth.

    Rewards divided by 0.7 give it back.
    """
    rng = np.random.default_rng(0)
    thinned = [
        ([replace(row, reward=row.reward * (rng.random() >= 0.3)) for row in rows], targets, truth)
        for rows, targets, truth in steady
    ]
    truth = np.mean([truth.value for *_, truth in steady])
    lost, back = errors(thinned), errors(thinned, lambda rows: rescaled(rows, 0.7))
    assert abs(lost.mean() + 0.3 * truth) < 4 * lost.std(ddof=1) / np.sqrt(8)
    assert lost.mean() < -0.1
    assert abs(back.mean()) < 4 * back.std(ddof=1) / np.sqrt(8)


def test_the_number_of_jobs_changes_nothing():
    experiment = Experiment(
        worlds=[WORLDS["drift"], WORLDS["missing"]],
        policies=[EPSILON, POLICIES["vw-epsilon"]],
        targets=TARGETS[:2],
        seeds=1,
        rounds=50,
    )
    one, two = (
        msgspec.json.encode(run_experiment(experiment, in_processes(jobs))) for jobs in (1, 2)
    )
    assert one == two
    report = msgspec.json.decode(one)
    assert len(report["cells"]) == 4
    assert len(report["scores"]) == len(FORMULAS) * 3  # of missing, as joined and rescaled
    assert len(report["details"]) == len(FORMULAS) * 3 * 2 * 2


def test_a_cell_adds_up():
    done = run_world_cell(WorldCell(WORLDS["steady"], EPSILON, 5, 80, TARGETS))
    assert abs(np.mean(done.quarters) - done.mean_reward) < 1e-12
    assert 0.0 < done.regret < 1.0
    assert list(done.truths) == ["uniform", "softmax 0.2", "best 0.1"]
    assert len(done.findings) == 3 * len(FORMULAS)


def said(seed: int, value: float, half: float, verdict: str = "reliable") -> WorldCellResult:
    """A cell with one estimate of a truth of 1."""
    found = TargetEstimate(
        "t", "ips", "as joined", value, half / 2, (value - half, value + half), verdict
    )
    return WorldCellResult("w", "p", seed, 0.0, 0.0, [], {"t": Truth(1.0, 0.0)}, [found])


def test_scores_are_those_computed_by_hand():
    cells = [
        said(0, 1.1, 0.2),
        said(1, 0.7, 0.2),
        said(2, 1.2, 0.5, "weak"),
        said(3, 1.0, 0.1, "unreliable"),
    ]
    (score,) = scores(cells)
    left = np.array([0.1, -0.3, 0.2, 0.0])
    assert score.estimates == 4
    assert score.bias.value == pytest.approx(0.0, abs=1e-15)
    assert score.bias.stderr == pytest.approx(left.std(ddof=1) / 2)
    assert score.rmse.value == pytest.approx(np.sqrt((left**2).mean()))
    assert score.rmse.stderr == pytest.approx((left**2).std(ddof=1) / 2 / (2 * score.rmse.value))
    assert score.coverage.value == 0.75
    assert score.trusted_coverage.value == 0.5
    assert (score.reliable.value, score.weak.value, score.unreliable.value) == (0.5, 0.25, 0.25)
    (detail,) = scores(cells, detailed=True)
    assert (detail.policy, detail.target, detail.bias) == ("p", "t", score.bias)


def test_what_cannot_be_told_is_no_number():
    (score,) = scores([said(0, 1.1, 0.2, "weak")])
    assert np.isnan(score.bias.stderr)
    assert np.isnan(score.trusted_coverage.value)
    assert b'"trusted_coverage":{"value":null,"stderr":null}' in msgspec.json.encode(score)


def test_estimates_of_one_seed_are_not_independent():
    """Everything said twice tells no more than once."""
    once = [said(seed, 1.0 + seed / 10, 0.2) for seed in range(5)]
    assert scores(once * 2)[0].bias.stderr == pytest.approx(scores(once)[0].bias.stderr)


def test_the_error_of_a_ratio_is_right():
    """Its square is within 15% of the variance over 4,000 samples of 30 seeds (noise: 2.2%)."""
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 6, (4000, 30)).astype(float)
    hits = rng.binomial(counts.astype(int), 0.8).astype(float)
    found = [ratio_of_sums(*each) for each in zip(hits, counts, strict=True)]
    variance = np.var([each.value for each in found])
    assert np.mean([each.stderr**2 for each in found]) == pytest.approx(variance, rel=0.15)


def invoke(*arguments: str):
    return CliRunner().invoke(app, ["worlds", "--seeds", "2", "--rounds", "40", *arguments])


def test_the_command_prints_tables_and_writes_the_report(tmp_path):
    out = tmp_path / "report.json"
    done = invoke(
        "--world", "steady", "--policy", "ridge-lints", "--target", "uniform", "--out", str(out)
    )
    assert done.exit_code == 0, done.output
    assert "closed loop" in done.output
    assert "switch_dr" in done.output
    written = msgspec.json.decode(out.read_bytes())
    assert written["seeds"] == [0, 1]
    assert [each["policy"] for each in written["cells"]] == ["ridge-lints"] * 2


def test_a_policy_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\nexploration: {kind: epsilon_greedy, epsilon: 0.5}\njoin: {window_s: 60}\n"
    )
    spec = WORLDS["steady"].policy(policy_named(str(path)))
    assert (spec.name, spec.join.window_s) == ("mine", 0.1)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--world", "flat"], "--world: there is no world 'flat'; use one of steady"),
        (["--world", "drift", "--world", "drift"], "--world: name at least one, and each once"),
        (
            ["--policy", "nobody.yaml"],
            "--policy: 'nobody.yaml' is no file; use one of ridge-epsilon",
        ),
        (["--target", "{kind: best, epsilon: 0}"], "--target: {kind: best, epsilon: 0}: "),
        (
            ["--target", "worst"],
            "--target: worst: 'worst' is no choice: there are uniform, softmax, best; use uniform",
        ),
        (["--jobs", "2", "--address", "local"], "--jobs: the Ray cluster"),
    ],
)
def test_errors_name_the_option_and_the_fix(arguments, named):
    done = invoke(*arguments)
    assert isinstance(done.exception, InvalidFieldError)
    assert named in done.exception.message


def test_a_policy_with_sources_is_refused(tmp_path):
    path = tmp_path / "sources.yaml"
    path.write_text("name: far\nsources: [{kind: remote, name: cf, url: 'http://localhost:1'}]\n")
    with pytest.raises(InvalidFieldError, match="leave sources out"):
        policy_named(str(path))
