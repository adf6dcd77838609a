"""Evaluation of whole sessions: identities, a decision process with a known truth, collapse."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from typer.testing import CliRunner

from bandits.errors import BadRowError, ReplayError
from bandits.exploration import Softmax
from bandits.ridge.config import RidgeConfig
from bandits.statistics.intervals import Bernstein, Bootstrap
from bandits.types import Float64
from policies.blend import make_learner
from policies.spec import PolicySpec
from serve_app.cli.main import app
from simulator.learners.trained import FrozenPolicy
from simulator.logs.rows import LoggedDecision, MemoryPiece, batch_of, key_of
from simulator.ope.batch import OpeBatch
from simulator.ope.estimators import Estimator
from simulator.ope.formulas import DR, SNIPS
from simulator.ope.sessions.batch import SessionBatch, session_batch
from simulator.ope.sessions.cutting import cut_sessions
from simulator.ope.sessions.estimators import Reach, SessionEstimator
from simulator.ope.sessions.formulas import SESSION_FORMULAS
from simulator.ope.targets import LoggingTarget, RowTarget, UniformTarget
from simulator.replay.evaluate_sessions import SessionQuestion, evaluate_sessions
from simulator.sessions.log import log_sessions
from simulator.sessions.satiation import satiation_world
from simulator.sessions.world import USE

# Two states, two actions. The second action earns less, and is likelier to lead to the good state 1
# and to go on.
REWARD = np.array([[0.5, 0.2], [0.9, 0.6]])
TO_GOOD = np.array([[0.1, 0.7], [0.3, 0.9]])
GOES_ON = np.array([[0.6, 0.9], [0.7, 0.95]])
LOGGING = np.array([[0.5, 0.5], [0.6, 0.4]])
TARGET = np.array([[0.3, 0.7], [0.2, 0.8]])
NAMES = list(SESSION_FORMULAS)
PAUSE_S = SessionQuestion((LoggingTarget(),)).pause_s


def truth(policy: Float64, horizon: int, gamma: float) -> float:
    """The expected return of the first ``horizon`` decisions, from state 0."""
    value = np.zeros(2)
    for _ in range(horizon):
        ahead = TO_GOOD * value[1] + (1 - TO_GOOD) * value[0]
        value = (policy * (REWARD + gamma * GOES_ON * ahead)).sum(axis=1)
    return float(value[0])


def rows_of(policy: Float64, sessions: int, seed: int) -> list[LoggedDecision]:
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(sessions):
        state, step, goes_on = 0, 0, True
        while goes_on:
            chosen = int(rng.random() < policy[state, 1])
            rows.append(
                LoggedDecision(
                    event_id=f"{seed}.{number}.{step}",
                    context={"state": f"s{state}", "visit": f"{seed}.{number}"},
                    action_ids=("first", "second"),
                    chosen=chosen,
                    propensity=float(policy[state, chosen]),
                    reward=float(rng.random() < REWARD[state, chosen]),
                    pmf=policy[state],
                    time_ms=1 + len(rows),
                )
            )
            goes_on = rng.random() < GOES_ON[state, chosen]
            state, step = int(rng.random() < TO_GOOD[state, chosen]), step + 1
    return rows


class Known(RowTarget):
    """TARGET, or another policy by state."""

    def __init__(self, pmfs: Float64 = TARGET) -> None:
        super().__init__("known")
        self._pmfs = pmfs

    def pmf(self, row: LoggedDecision) -> Float64:
        return self._pmfs[int(str(row.context["state"])[1])]


def ask(rows, *targets, **fields):
    question = SessionQuestion(targets or (Known(),), session="visit", **({"horizon": 6} | fields))
    return evaluate_sessions(question, [MemoryPiece(rows)])


def estimates(rows, *targets, **fields):
    return ask(rows, *targets, **fields).results[0].estimates


@pytest.mark.parametrize(
    ("horizon", "gamma", "sessions"), [(1, 1.0, 1500), (4, 1.0, 1500), (6, 0.8, 6000)]
)
def test_estimates_are_near_the_truth(horizon, gamma, sessions):
    """Within 4.5 standard errors: a false alarm in 150,000, of each of 12."""
    expected = truth(TARGET, horizon, gamma)
    found = estimates(rows_of(LOGGING, sessions, 1), horizon=horizon, gamma=gamma)
    assert list(found) == NAMES
    for each in found.values():
        assert abs(each.value - expected) < 4.5 * each.stderr
        assert each.verdict == "reliable"
    assert found["wdr"].stderr <= found["wis"].stderr


def test_of_one_decision_they_are_the_estimators_of_decisions():
    rows = rows_of(LOGGING, 800, 2)
    first = [row for row in rows if row.event_id.endswith(".0")]
    found = estimates(rows, horizon=1)
    batch = batch_of(first)
    target = np.array([Known().pmf(row)[row.chosen] for row in first])
    snips = Estimator(SNIPS())
    snips.update(OpeBatch(batch.keys, batch.reward, batch.propensity, target))
    for name in ("wis", "pdwis"):
        assert found[name].value == pytest.approx(snips.estimate().value, rel=1e-12)
        assert found[name].stderr == pytest.approx(snips.estimate().stderr, rel=1e-9)


@pytest.mark.parametrize("gamma", [1.0, 0.7])
def test_of_the_logging_policy_they_are_the_mean_return(gamma):
    rows = rows_of(LOGGING, 300, 3)
    found = estimates(rows, LoggingTarget(), horizon=5, gamma=gamma)
    mean = np.mean(
        [
            sum(row.reward * gamma**at for at, row in enumerate(session[:5]))
            for session in cut_sessions(rows, session="visit", pause_s=PAUSE_S)
        ]
    )
    assert found["wis"].value == pytest.approx(mean, rel=1e-12)
    assert found["pdwis"].value == pytest.approx(mean, rel=1e-12)
    assert found["wis"].ess == pytest.approx(300)


@dataclass
class Numbers:
    """Random sessions, as numbers."""

    count: int
    horizon: int
    seed: int = 0

    def batch(self, *, gamma: float = 0.9, model: float = 1.0) -> SessionBatch:
        rng = np.random.default_rng(self.seed)
        shape = self.count, self.horizon
        return session_batch(
            rng.integers(0, 2**63, self.count).astype(np.uint64),
            rng.integers(1, self.horizon + 1, self.count),
            rng.random(shape),
            rng.uniform(0.2, 0.9, shape),
            rng.uniform(0.1, 0.9, shape),
            np.zeros(shape),
            gamma=gamma,
            action_values=model * rng.random(shape),
            values=model * rng.random(shape),
        )


def part(batch: SessionBatch, rows: slice) -> SessionBatch:
    names = (
        "keys",
        "reward",
        "propensity",
        "target",
        "unsupported",
        "rewards",
        "running",
        "action_values",
        "values",
    )
    return replace(batch, **{name: getattr(batch, name)[rows] for name in names})


@pytest.mark.parametrize("name", NAMES)
def test_any_partition_merges_to_the_one_pass_result(name):
    batch = Numbers(400, 5).batch()
    whole, merged = (SessionEstimator(name, horizon=5, gamma=0.9, replicates=20) for _ in range(2))
    reach, total = Reach(5), Reach(5)
    whole.update(batch)
    reach.update(batch, [5] * 400)
    for start, stop in ((0, 7), (7, 8), (8, 8), (8, 250), (250, 400)):
        one, its = SessionEstimator(name, horizon=5, gamma=0.9, replicates=20), Reach(5)
        rows = slice(start, stop)
        one.update(part(batch, rows))
        its.update(part(batch, rows), [5] * (stop - start))
        merged.merge(one)
        total.merge(its)
    for interval in (None, Bootstrap()):
        given = [] if interval is None else [interval]
        first, second = whole.estimate(reach, *given), merged.estimate(total, *given)
        assert second.value == pytest.approx(first.value, rel=1e-10)
        assert second.stderr == pytest.approx(first.stderr, rel=1e-9)
        assert second.interval == pytest.approx(first.interval, rel=1e-9)
        assert (second.n, second.verdict) == (first.n, first.verdict)
    np.testing.assert_allclose(total.ess, reach.ess)


@pytest.mark.parametrize("name", NAMES)
def test_a_standard_error_follows_from_the_gradient(name):
    """Against central differences of the value."""
    formula = SESSION_FORMULAS[name](4, 0.9)
    means = np.random.default_rng(1).uniform(0.5, 1.5, formula.k)
    steps = 1e-6 * np.eye(formula.k)
    numeric = [(formula.value(means + step) - formula.value(means - step)) / 2e-6 for step in steps]
    np.testing.assert_allclose(formula.gradient(means), numeric, rtol=1e-6, atol=1e-8)


def test_with_a_model_of_zeros_dr_is_per_decision_importance_sampling():
    batch = Numbers(50, 4).batch(model=0.0)
    formula = SESSION_FORMULAS["dr"](4, 0.9)
    columns = formula.columns(batch.weight, batch)
    np.testing.assert_allclose(columns[0], (batch.running * batch.rewards) @ 0.9 ** np.arange(4))
    weighted = SESSION_FORMULAS["wdr"](4, 0.9)
    per_decision = SESSION_FORMULAS["pdwis"](4, 0.9)
    one, other = (
        each.value(each.columns(batch.weight, batch).mean(axis=1))
        for each in (weighted, per_decision)
    )
    assert one == pytest.approx(other, rel=1e-12)


def test_with_a_perfect_model_and_no_chance_dr_does_not_need_the_weights():
    """Two decisions earn 1 each, whatever is chosen: the model says so, and every estimate is 2."""
    rng = np.random.default_rng(0)
    values = np.tile([2.0, 1.0], (40, 1))
    batch = session_batch(
        np.arange(40, dtype=np.uint64),
        np.full(40, 2),
        np.ones((40, 2)),
        rng.uniform(0.1, 0.9, (40, 2)),
        rng.uniform(0.1, 0.9, (40, 2)),
        np.zeros((40, 2)),
        gamma=1.0,
        action_values=values,
        values=values,
    )
    columns = SESSION_FORMULAS["dr"](2).columns(batch.weight, batch)[0]
    assert columns == pytest.approx(
        2.0 + batch.running[:, 0] * 0 + 0 * batch.running[:, 1], abs=1e-12
    )


def test_a_long_horizon_is_flagged_when_the_weights_collapse():
    """Few sessions count after a while.

    The report says from which decision on, and a horizon that it names is fine.
    """
    long = np.array([[1.0, 1.0], [1.0, 1.0]]) / 2
    sharp = np.array([[0.05, 0.95], [0.05, 0.95]])
    rows = rows_of(long, 1500, 5)
    far = ask(rows, Known(sharp), horizon=30).results[0]
    for each in far.estimates.values():
        assert each.verdict == "unreliable"
        assert "fewer than 100 sessions count from decision" in each.reason
    horizon = int(far.estimates["pdwis"].reason.split("--horizon ")[1].split(",")[0])
    assert 1 <= horizon < 30
    near = estimates(rows, Known(sharp), horizon=horizon)
    assert all(each.verdict != "unreliable" for each in near.values())
    assert all(each.ess >= 100 for each in near.values())
    shorter = [estimates(rows, Known(sharp), horizon=h)["pdwis"].ess for h in (2, 8, 30)]
    assert shorter == sorted(shorter, reverse=True)
    assert any("effective sample size by decision" in note for note in far.notes)


def test_what_the_log_never_does_is_missing_from_the_weights():
    only = np.array([[1.0, 0.0], [1.0, 0.0]])
    found = estimates(rows_of(only, 400, 6), Known(), horizon=3)
    assert all(each.verdict == "unreliable" for each in found.values())
    assert all("never takes" in each.reason for each in found.values())


def test_two_policies_are_compared_on_the_same_sessions():
    report = ask(rows_of(LOGGING, 1500, 7), Known(), LoggingTarget(), UniformTarget(), horizon=6)
    at = {(each.left, each.right): each.result for each in report.comparisons}
    difference = at["known", "logging"]
    expected = truth(TARGET, 6, 1.0) - truth(LOGGING, 6, 1.0)
    assert abs(difference.difference - expected) < 4.5 * difference.stderr
    assert difference.significant
    assert report.winner == "known"


def test_sessions_are_a_users_decisions_without_a_long_pause():
    @dataclass
    class Record:
        user: str | None

    def row(user: str | None, minute: int) -> LoggedDecision:
        base = rows_of(LOGGING, 1, 0)[0]
        return replace(
            base, event_id=f"{user}{minute}", record=Record(user), time_ms=60_000 * minute
        )

    rows = [row("a", 0), row("b", 1), row("a", 29), row("a", 59), row("a", 90), row("b", 200)]
    sessions = cut_sessions(rows, session=None, pause_s=PAUSE_S)
    assert [[row.event_id for row in session] for session in sessions] == [
        ["a0", "a29", "a59"],
        ["b1"],
        ["a90"],
        ["b200"],
    ]
    for bad, target in (
        (row(None, 0), "session"),
        (row("", 0), "session"),
        (replace(row("a", 0), slot=1), "slot"),
    ):
        with pytest.raises(ReplayError) as refused:
            cut_sessions([bad], session=None, pause_s=PAUSE_S)
        assert refused.value.target == target


@pytest.mark.parametrize("visit", ["", [], None])
def test_decisions_of_no_session_are_not_of_one(visit):
    rows = [
        replace(row, context={} if visit is None else {"visit": visit})
        for row in rows_of(LOGGING, 2, 0)
    ]
    with pytest.raises(
        ReplayError, match="is of no session: it has no context feature 'visit', or an empty one"
    ):
        cut_sessions(rows, session="visit", pause_s=PAUSE_S)


def test_decisions_of_no_session_are_left_out_and_counted_when_asked():
    rows = rows_of(LOGGING, 200, 0)
    mixed = [
        replace(row, context={"visit": ""}) if number % 5 == 0 else row
        for number, row in enumerate(rows)
    ]
    kept = [row for number, row in enumerate(rows) if number % 5]
    found, alone = ask(mixed, UniformTarget(), skip_bad=True), ask(kept, UniformTarget())
    assert found.results == alone.results
    assert (found.log.skipped, alone.log.skipped) == (len(rows) - len(kept), 0)
    with pytest.raises(ReplayError, match="no decision of the log says whose session"):
        ask([replace(row, context={}) for row in rows], UniformTarget(), skip_bad=True)


def test_sessions_of_a_number_and_of_its_text_are_two():
    first, other = rows_of(LOGGING, 2, 0)[:2]
    named = [replace(row, context={"visit": name}) for row, name in ((first, 1.0), (other, "1.0"))]
    assert len(cut_sessions(named, session="visit", pause_s=PAUSE_S)) == 2


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ({"horizon": 0}, "horizon"),
        ({"gamma": 1.5}, "gamma"),
        ({"estimators": ["ips"]}, "estimator"),
        ({"interval": "bernstein"}, "interval"),
        ({"alpha": 0.0}, "alpha"),
        ({"targets": []}, "policy"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(fields, target):
    with pytest.raises(ReplayError) as refused:
        SessionQuestion(**({"targets": (UniformTarget(),)} | fields))
    assert refused.value.target == target


def test_numbers_that_cannot_be_used_are_refused():
    batch = Numbers(5, 3).batch()
    with pytest.raises(ReplayError, match="sessions of 4"):
        SESSION_FORMULAS["dr"](4).columns(batch.weight, batch)
    with pytest.raises(ReplayError, match="need the values"):
        SESSION_FORMULAS["wdr"](3).columns(batch.weight, replace(batch, values=None))
    estimator = SessionEstimator("wis", horizon=3)
    estimator.update(batch)
    with pytest.raises(ReplayError, match="normal and bootstrap"):
        estimator.estimate(Reach(3), Bernstein())
    with pytest.raises(BadRowError):
        session_batch(batch.keys, np.full(5, 3), *(np.zeros((5, 3)) for _ in range(4)), gamma=1.0)
    with pytest.raises(ReplayError, match="no sessions"):
        ask([])
    assert key_of("a") != key_of("b")


def test_an_estimator_takes_only_its_own_kind():
    estimator = SessionEstimator("wis", horizon=3)
    with pytest.raises(ReplayError, match="cannot merge"):
        estimator.merge(SessionEstimator("wis", horizon=4))
    with pytest.raises(ReplayError, match="cannot merge"):
        estimator.estimator.merge(Estimator(DR()))


def test_the_command_evaluates_sessions(tmp_path):
    """A far policy at a long horizon cannot be relied on: the table says so, the report why."""
    lines = ["id,visit,state,of,shown,p,click"]
    lines += [
        f"{row.event_id},{row.context['visit']},{row.context['state']},first|second,"
        f"{row.action_ids[row.chosen]},{row.propensity},{row.reward}"
        for row in rows_of(LOGGING, 300, 8)
    ]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    table = ["state,action,probability", "s0,second,1", "s1,second,1"]
    (tmp_path / "second.csv").write_text("\n".join(table) + "\n")
    columns = (
        "{reward: click, propensity: p, event_id: id, action: shown, actions: of,"
        " context: [visit, state]}"
    )
    command = [
        "replay",
        "--log",
        str(tmp_path / "log.csv"),
        "--format",
        "csv",
        "--columns",
        columns,
    ]
    command += [
        "--method",
        "sessions",
        "--session",
        "visit",
        "--out",
        str(tmp_path / "r.json"),
        "--policy",
        "uniform",
    ]
    command += [
        "--policy",
        f"{{kind: table, path: {tmp_path / 'second.csv'}}}",
        "--html",
        str(tmp_path / "r.html"),
    ]
    done = CliRunner().invoke(app, [*command, "--horizon", "40"])
    assert done.exit_code == 0, done.output
    assert "second · sessions" in done.output
    results = {
        each["policy"]: each for each in json.loads((tmp_path / "r.json").read_text())["results"]
    }
    assert set(results["uniform"]["estimates"]) == set(NAMES)
    assert {each["verdict"] for each in results["second"]["estimates"].values()} == {"unreliable"}
    assert {each["verdict"] for each in results["logging"]["estimates"].values()} == {"reliable"}
    assert "unreliable" in (tmp_path / "r.html").read_text()
    wrong = CliRunner().invoke(app, [*command, "--gamma", "2"])
    assert wrong.exit_code == 1
    assert "gamma is between 0 and 1" in str(wrong.exception)
    numbers = "{reward: click, propensity: p, event_id: id}"
    command[command.index(columns)] = numbers
    assert "this log has none" in str(CliRunner().invoke(app, command).exception)


def test_a_log_of_sessions_is_what_a_service_would_have_made():
    """Its decisions carry the record they were made with.

    Of the policy that made it the estimate is its mean.
    """
    world = satiation_world("small", 0)
    spec = PolicySpec(
        "made", use=list(USE), learner=RidgeConfig(), exploration=Softmax(), floor=0.2
    )
    snapshot = make_learner(spec, salt=b"x").snapshot("0-0")
    rows = log_sessions(world, spec, snapshot, 120, 1)
    report = evaluate_sessions(
        SessionQuestion([FrozenPolicy("same", spec, snapshot), LoggingTarget()]),
        [MemoryPiece(rows)],
    )
    same, logging = (result.estimates["pdwis"] for result in report.results)
    assert same.n == 120
    assert same.value == pytest.approx(logging.value, rel=1e-9)
