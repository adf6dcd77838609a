"""Estimators by hand, at their limits, and in pieces; verdicts."""

import copy
import math
from dataclasses import dataclass, replace
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from bandits.errors import BadRowError, ReplayError
from bandits.statistics.intervals import Anytime, Bernstein, Bootstrap, Normal
from simulator.ope.batch import OpeBatch, ope_batch_from_pmfs
from simulator.ope.comparisons import Difference, compare_all
from simulator.ope.estimators import Estimate, Estimator, Slope, make_estimator
from simulator.ope.formulas import FORMULAS, IPS, SNIPS, Formula

REPLICATES = 50
TUNED = {name: kind.tuned for name, kind in FORMULAS.items() if kind.tuned}
KINDS = [(name, {}) for name in FORMULAS] + [
    (name, {tuned: "auto"}) for name, tuned in TUNED.items()
]
INTERVALS = [
    Normal(),
    Bootstrap(),
    Bernstein(),
    Bernstein(max_weight=50.0, rewards=(0.0, 2e6)),
    Anytime(),
]

BY_HAND = OpeBatch(
    keys=np.arange(2, dtype=np.uint64),
    reward=np.array([1.0, 2.0]),
    propensity=np.array([0.5, 0.1]),
    target=np.array([0.25, 0.4]),  # weights 0.5 and 4
    predicted=np.array([0.5, 1.5]),
    expected=np.array([1.0, 1.25]),
)


def log(n: int, seed: int = 0, offset: float = 0.0) -> OpeBatch:
    """Rows of a sound log of 5 actions, rewards and predictions ``offset`` from [0, 1]."""
    rng = np.random.default_rng(seed)
    logging, target = (
        rng.dirichlet(np.full(5, 2.0), n) * 0.8 + 0.04,
        rng.dirichlet(np.full(5, 2.0), n),
    )
    chosen = (rng.random((n, 1)) > logging.cumsum(axis=1)[:, :-1]).sum(axis=1)
    predictions = offset + rng.random((n, 5))
    keys = rng.integers(0, 2**64, n, np.uint64)
    return ope_batch_from_pmfs(keys, offset + rng.random(n), chosen, logging, target, predictions)


def rows_of(batch: OpeBatch, rows) -> OpeBatch:
    fields = {name: getattr(batch, name) for name in OpeBatch.__dataclass_fields__}
    return OpeBatch(
        **{name: None if column is None else column[rows] for name, column in fields.items()}
    )


def assert_same(found: msgspec.Struct, other: msgspec.Struct) -> None:
    """To 1e-9 in every number."""
    for name, value in msgspec.structs.asdict(other).items():
        wanted = value if isinstance(value, str) else pytest.approx(value, rel=1e-9)
        assert getattr(found, name) == wanted, name


def estimate(name: str, batch: OpeBatch, **parameter) -> Estimate:
    each = make_estimator(name, **parameter)
    each.update(batch)
    return each.estimate()


@pytest.mark.parametrize(
    ("name", "parameter", "value"),
    [
        ("ips", {}, (0.5 + 8.0) / 2),
        ("clipped_ips", {"clip": 3.0}, (0.5 + 6.0) / 2),
        ("snips", {}, 8.5 / 4.5),
        ("dm", {}, (1.0 + 1.25) / 2),
        ("dr", {}, (1.0 + 0.5 * 0.5 + 1.25 + 4 * 0.5) / 2),
        ("sndr", {}, 1.125 + (0.25 + 2.0) / 4.5),
        ("switch_dr", {"tau": 3.0}, (1.0 + 0.25 + 1.25) / 2),
        ("dros", {"lambda_": 4.0}, (1.0 + 2 / 4.25 * 0.5 + 1.25 + 16 / 20 * 0.5) / 2),
    ],
)
def test_values_by_hand(name, parameter, value):
    assert estimate(name, BY_HAND, **parameter).value == pytest.approx(value, rel=1e-14)


def test_the_other_figures_by_hand():
    found = estimate("clipped_ips", BY_HAND, clip=3.0)
    assert found.stderr == pytest.approx(np.std([0.5, 6.0], ddof=1) / math.sqrt(2))
    assert found.n == 2
    assert found.ess == pytest.approx(3.5**2 / (0.25 + 9.0))
    assert found.max_weight == 3.0
    assert found.clipped_fraction == pytest.approx(1.0 / 4.5)
    assert found.interval == pytest.approx(
        (found.value - 1.959964 * found.stderr, found.value + 1.959964 * found.stderr)
    )


@pytest.mark.parametrize("name", ["snips", "sndr"])
def test_the_standard_error_of_a_ratio_is_that_of_its_linear_part(name):
    batch = log(2000)
    found, w = estimate(name, batch), batch.weight
    residual = batch.reward if name == "snips" else batch.reward - batch.predicted
    ratio = (w * residual).mean() / w.mean()
    influence = w * (residual - ratio) / w.mean() + (batch.expected if name == "sndr" else 0.0)
    assert found.stderr == pytest.approx(influence.std(ddof=1) / math.sqrt(2000), rel=1e-12)


@pytest.mark.parametrize("name", ["ips", "snips", "clipped_ips"])
def test_for_the_logging_policy_itself_the_value_is_the_mean_reward(name):
    batch = log(100)
    assert estimate(name, replace(batch, target=batch.propensity)).value == pytest.approx(
        batch.reward.mean(), rel=1e-12
    )


@pytest.mark.parametrize(
    ("name", "parameter", "same"),
    [
        ("switch_dr", {"tau": math.inf}, "dr"),
        ("switch_dr", {"tau": 0.0}, "dm"),
        ("dros", {"lambda_": math.inf}, "dr"),
        ("dros", {"lambda_": 1e18}, "dr"),
        ("dros", {"lambda_": 0.0}, "dm"),
        ("dros", {"lambda_": 1e-18}, "dm"),
        ("clipped_ips", {"clip": math.inf}, "ips"),
    ],
)
def test_limits_of_parameters(name, parameter, same):
    limit, other = estimate(name, log(500), **parameter), estimate(same, log(500))
    assert (limit.value, limit.stderr) == pytest.approx((other.value, other.stderr), rel=1e-12)


@pytest.mark.parametrize(("name", "same"), [("dr", "ips"), ("sndr", "snips")])
def test_with_a_model_of_zeros_dr_is_ips(name, same):
    batch = log(500)
    zeros = replace(batch, predicted=np.zeros(500), expected=np.zeros(500))
    found, other = estimate(name, zeros), estimate(same, batch)
    assert (found.value, found.stderr) == pytest.approx((other.value, other.stderr), rel=1e-12)


@pytest.mark.parametrize(("name", "parameter"), KINDS)
def test_a_model_that_knows_every_reward_is_dm(name, parameter):
    batch = log(500)
    perfect = replace(batch, predicted=batch.reward)
    modelled = name not in {"ips", "clipped_ips", "snips"}
    same = math.isclose(
        estimate(name, perfect, **parameter).value, float(batch.expected.mean()), rel_tol=1e-12
    )
    assert same == modelled


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize(("name", "parameter"), KINDS)
def test_any_partition_in_any_order_gives_the_same(name, parameter, offset):
    batch, rng = log(300, offset=offset), np.random.default_rng(1)
    whole = make_estimator(name, replicates=REPLICATES, **parameter)
    whole.update(batch)
    for shards in (2, 7):
        order = rng.permutation(300)
        cuts = [0, 1, *sorted(rng.integers(1, 300, shards - 1)), 300]  # the first shard has one row
        parts = []
        for start, stop in pairwise(cuts):
            part = make_estimator(name, replicates=REPLICATES, **parameter)
            for rows in np.array_split(order[start:stop], 3):
                part.update(rows_of(batch, rows))
            parts.append(copy.deepcopy(part))  # by what sends it to another process
        merged = make_estimator(name, replicates=REPLICATES, **parameter)
        for each in rng.permutation(len(parts)):
            merged.merge(parts[each])
        for interval in INTERVALS:
            assert_same(merged.estimate(interval), whole.estimate(interval))


@pytest.mark.parametrize(("name", "parameter"), KINDS)
def test_no_rows_give_no_value_and_an_unreliable_verdict(name, parameter):
    each = make_estimator(name, replicates=REPLICATES, **parameter)
    each.update(rows_of(log(5), slice(0, 0)))
    each.merge(make_estimator(name, replicates=REPLICATES, **parameter))
    for interval in INTERVALS:
        found = each.estimate(interval)
        assert math.isnan(found.value)
        assert (found.stderr, found.interval) == (math.inf, (-math.inf, math.inf))
        assert (found.n, found.ess, found.verdict) == (0, 0.0, "unreliable")
        assert "no rows" in found.reason
    assert msgspec.json.decode(msgspec.json.encode(found))["value"] is None


@pytest.mark.parametrize(("name", "parameter"), KINDS)
def test_one_row_has_a_value_and_no_interval(name, parameter):
    each = make_estimator(name, replicates=REPLICATES, **parameter)
    each.update(rows_of(log(5), slice(0, 1)))
    for interval in INTERVALS:
        found = each.estimate(interval)
        assert math.isfinite(found.value)
        assert (found.stderr, found.interval) == (math.inf, (-math.inf, math.inf))
        assert (found.n, found.verdict) == (1, "unreliable")


def test_rows_without_target_mass_have_no_ratio():
    nothing = replace(log(50), target=np.zeros(50))
    for name, value in (("snips", math.nan), ("sndr", math.nan), ("ips", 0.0)):
        found = estimate(name, nothing)
        assert found.value == pytest.approx(value, nan_ok=True)
        assert found.verdict == "unreliable"


@pytest.mark.parametrize("name", ["dm", "dr", "sndr", "switch_dr", "dros"])
def test_the_dr_family_needs_predictions(name):
    with pytest.raises(ReplayError, match="snips") as caught:
        estimate(name, replace(log(5), predicted=None))
    assert caught.value.target == "predicted"


@pytest.mark.parametrize(
    ("field", "value"), [("reward", np.nan), ("target", np.inf), ("propensity", 0.0)]
)
@pytest.mark.parametrize("name", ["ips", "clipped_ips", "dr"])
def test_what_is_not_finite_is_refused_and_nothing_is_added(name, field, value):
    each, batch = make_estimator(name), log(5)
    each.update(batch)
    before = each.estimate()
    bad = getattr(batch, field).copy()
    bad[3] = value
    with pytest.raises(ReplayError, match="leave"):
        each.update(replace(batch, **{field: bad}))
    assert each.estimate() == before


def test_merging_what_does_not_fit_is_refused():
    with pytest.raises(ReplayError, match="merge"):
        make_estimator("ips").merge(make_estimator("snips"))
    with pytest.raises(ReplayError, match="merge"):
        make_estimator("clipped_ips", clip=2.0).merge(make_estimator("clipped_ips", clip=3.0))
    with pytest.raises(ReplayError, match="merge"):
        make_estimator("switch_dr", tau="auto").merge(Slope([make_estimator("switch_dr")]))
    with pytest.raises(ReplayError, match="merge"):
        Difference(IPS()).merge(Difference(SNIPS()))


@pytest.mark.parametrize(
    ("name", "parameter", "target"),
    [
        ("ipw", {}, "estimator"),
        ("ips", {"clip": 3.0}, "clip"),
        ("dros", {"tau": 3.0}, "tau"),
        ("switch_dr", {"tau": -1.0}, "tau"),
        ("switch_dr", {"tau": math.nan}, "tau"),
        ("switch_dr", {"tau": "most"}, "tau"),
    ],
)
def test_unknown_names_and_parameters_are_refused(name, parameter, target):
    with pytest.raises(ReplayError) as caught:
        make_estimator(name, **parameter)
    assert caught.value.target == target


def test_slope_takes_the_least_variance_where_bias_does_not_show():
    """A model that is right makes all of DR's grid unbiased.

    One that is far off makes small limits visibly biased.
    """
    batch = log(5000)
    middle = replace(batch, predicted=np.full(5000, 0.5), expected=np.full(5000, 0.5))
    assert "lambda_ = 1;" in estimate("dros", middle, lambda_="auto").reason + ";"
    far = replace(batch, predicted=np.full(5000, -50.0), expected=np.full(5000, -50.0))
    assert "lambda_ = 1;" not in estimate("dros", far, lambda_="auto").reason + ";"


@dataclass(frozen=True)
class Fixed(Formula):
    """A mean and a standard deviation in those of the rewards, whatever the weights."""

    middle: float = 0.0
    spread: float = 1.0

    def columns(self, weight, batch):
        return np.stack([self.middle + self.spread * (batch.reward - 0.5)])


def test_slope_by_hand():
    """Of three intervals +- 2 standard errors the third has no point in common with the others."""
    rewards = replace(log(1000), reward=np.tile([0.0, 1.0], 500))
    stderr = np.std(rewards.reward, ddof=1) / math.sqrt(1000)
    unit = 2.0 * stderr
    for second, chosen in ((1.4, 1), (1.6, 0)):
        formulas = [Fixed(0.0, 1.0), Fixed(second * unit, 0.5), Fixed(2.05 * unit, 0.1)]
        slope = Slope([Estimator(formula) for formula in formulas])
        slope.update(rewards)
        assert slope.chosen.formula is formulas[chosen]


def test_pmfs_become_rows():
    batch = ope_batch_from_pmfs(
        np.arange(2, dtype=np.uint64),
        np.array([1.0, 0.0]),
        np.array([1, 0]),
        np.array([[0.5, 0.5, 0.0], [0.2, 0.8, 0.0]]),
        np.array([[0.1, 0.6, 0.3], [1.0, 0.0, 0.0]]),
        np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
    )
    assert batch.propensity.tolist() == [0.5, 0.2]
    assert batch.weight == pytest.approx([1.2, 5.0])
    assert batch.unsupported.tolist() == [0.3, 0.0]
    assert batch.second_moment == pytest.approx([0.01 / 0.5 + 0.36 / 0.5, 5.0])
    assert batch.predicted.tolist() == [2.0, 4.0]
    assert batch.expected == pytest.approx([0.1 + 1.2 + 0.9, 4.0])


def test_a_choice_that_its_pmf_excludes_is_refused():
    with pytest.raises(BadRowError, match="row 1"):
        ope_batch_from_pmfs(
            np.zeros(2, np.uint64),
            np.ones(2),
            np.array([0, 1]),
            np.array([[0.5, 0.5], [1.0, 0.0]]),
            np.full((2, 2), 0.5),
        )


def sound_rows(n: int = 2000) -> OpeBatch:
    """Weights of 0.5 and 1.5, rewards in turn, and no model."""
    return OpeBatch(
        keys=np.arange(n, dtype=np.uint64),
        reward=np.tile([0.0, 0.0, 1.0, 1.0], n // 4),
        propensity=np.full(n, 0.5),
        target=np.tile([0.25, 0.75], n // 2),
    )


def test_a_sound_log_is_reliable():
    found = estimate("ips", sound_rows())
    assert found.verdict == "reliable"
    assert "nothing speaks against" in found.reason


def heavy(rows: OpeBatch, count: int) -> OpeBatch:
    """All weight in ``count`` rows, and the mean weight still 1."""
    target = np.zeros(len(rows))
    target[:count] = 0.5 * len(rows) / count
    return replace(rows, target=target)


@pytest.mark.parametrize(
    ("rows", "name", "verdict", "cause"),
    [
        (
            replace(sound_rows(), propensity=np.full(2000, 0.4)),
            "ips",
            "unreliable",
            "propensities are not those",
        ),
        (
            replace(sound_rows(), propensity=np.full(2000, 0.7)),
            "ips",
            "unreliable",
            "actions that the log lacks",
        ),
        (
            replace(sound_rows(), unsupported=np.full(2000, 0.2)),
            "snips",
            "unreliable",
            "mean weight is 1.2",
        ),
        (
            replace(sound_rows(), unsupported=np.full(2000, 0.2), target=np.tile([0.2, 0.6], 1000)),
            "snips",
            "unreliable",
            "20.0% of the target policy's choices",
        ),
        (
            replace(
                sound_rows(), unsupported=np.full(2000, 0.03), target=np.tile([0.235, 0.735], 1000)
            ),
            "snips",
            "weak",
            "3.0% of the target policy's choices",
        ),
        (heavy(sound_rows(), 20), "snips", "unreliable", "only 20.0 count"),
        (heavy(sound_rows(), 80), "snips", "weak", "only 80 count"),
        (
            replace(sound_rows(), second_moment=np.full(2000, 100.0)),
            "snips",
            "unreliable",
            "20.0 of 2,000",
        ),
        (
            replace(sound_rows(), second_moment=np.full(2000, 4.0)),
            "snips",
            "weak",
            "500.0 of 2,000",
        ),
        (replace(sound_rows(), reward=np.arange(2000) % 200 == 0), "ips", "weak", "as 10 alike"),
        (sound_rows(), "clipped_ips", "weak", "taken away"),
        (
            replace(sound_rows(), predicted=np.zeros(2000), expected=np.zeros(2000)),
            "dm",
            "weak",
            "the reward model's alone",
        ),
        (
            replace(sound_rows(), predicted=np.tile([0.0, 1.0], 1000), expected=np.full(2000, 0.5)),
            "snips",
            "unreliable",
            "miss their mean",
        ),
    ],
)
def test_each_cause_is_named(rows, name, verdict, cause):
    parameter = {"clip": 1.0} if name == "clipped_ips" else {}
    found = estimate(name, rows, **parameter)
    assert found.verdict == verdict
    assert cause in found.reason


def test_few_large_rewards_among_many_small_ones_are_few():
    """400 rows of reward 1 carry the value well.

    That 4 of them earn 200 times as much leaves 4 to rely on.
    """
    rows = replace(
        sound_rows(), target=np.full(2000, 0.5), reward=(np.arange(2000) % 5 == 0).astype(float)
    )
    assert estimate("ips", rows).verdict == "reliable"
    skewed = replace(rows, reward=np.where(np.arange(2000) % 500 == 0, 200.0, rows.reward))
    found = estimate("ips", skewed)
    assert (found.verdict, "carry the value, as 4 alike" in found.reason) == ("weak", True)


def test_weights_that_are_off_by_more_than_chance_are_doubted():
    """A mean weight of 1.057, 3.6 standard errors: too little for the bound, not for the normal."""
    rows = replace(sound_rows(1000), target=np.tile([0.16, 0.897], 500))
    found = estimate("ips", rows)
    assert (found.verdict, "of sound logs" in found.reason) == ("weak", True)


def test_a_row_with_much_of_the_weight_is_named():
    rows = sound_rows()
    target = np.full(2000, 0.47)
    target[7] = 0.5 * 120  # 6% of all weight, and an effective sample of 219
    found = estimate("ips", replace(rows, target=target))
    assert found.verdict == "weak"
    assert "one row has 6%" in found.reason


def test_a_shift_that_the_interval_would_not_show_is_flagged():
    """0.4% of the weight is clipped: ten times a standard error of a million rows."""
    rows = sound_rows(400_000)
    found = estimate("clipped_ips", rows, clip=1.49)
    assert found.clipped_fraction == pytest.approx(0.005)
    assert abs(found.value - estimate("ips", rows).value) > found.stderr
    assert (found.verdict, "taken away" in found.reason) == ("weak", True)


def test_the_difference_of_two_policies_is_that_of_their_estimates():
    left = log(1000)
    right = replace(left, target=left.target * np.random.default_rng(3).uniform(0.9, 1.1, 1000))
    for kind in FORMULAS.values():
        difference = Difference(kind())
        difference.update(left, right)
        found = difference.compare()
        one, other = estimator_of(kind(), left), estimator_of(kind(), right)
        assert found.difference == pytest.approx(one.value - other.value, abs=1e-12)
        assert found.stderr <= one.stderr + other.stderr
    ips = Difference(IPS())
    ips.update(left, right)
    paired = (left.weight - right.weight) * left.reward
    assert ips.compare().stderr == pytest.approx(paired.std(ddof=1) / math.sqrt(1000), rel=1e-9)


def estimator_of(formula: Formula, batch: OpeBatch) -> Estimate:
    each = Estimator(formula)
    each.update(batch)
    return each.estimate()


def test_a_policy_does_not_differ_from_itself():
    for kind in FORMULAS.values():
        same = Difference(kind(), REPLICATES)
        same.update(log(100), log(100))
        found = same.compare(Bootstrap())
        assert (found.difference, found.p_value, found.significant) == (0.0, 1.0, False)
        assert found.interval == (0.0, 0.0)
        assert found.stderr == pytest.approx(0.0, abs=1e-9)


def test_differences_merge():
    left, right = log(200), replace(log(200), target=log(200, seed=1).target)
    whole, merged = Difference(SNIPS(), REPLICATES), Difference(SNIPS(), REPLICATES)
    whole.update(left, right)
    for rows in (slice(150, 200), slice(0, 1), slice(1, 150)):
        part = Difference(SNIPS(), REPLICATES)
        part.update(rows_of(left, rows), rows_of(right, rows))
        merged.merge(part)
    for interval in INTERVALS:
        assert_same(merged.compare(interval), whole.compare(interval))


def test_only_the_same_rows_are_compared():
    with pytest.raises(ReplayError, match="same rows"):
        Difference(IPS()).update(log(10), log(10, seed=1))


def test_holm_by_hand():
    """p-values 0.01, 0.03, 0.04 of three: adjusted 0.03, 0.06, 0.06."""

    def with_p_value(z: float) -> Difference:
        difference, rows = (
            Difference(IPS()),
            replace(log(400), propensity=np.ones(400), target=np.ones(400)),
        )
        noise = np.tile([-1.0, 1.0], 200)
        stderr = np.std(noise, ddof=1) / 20.0
        difference.update(
            replace(rows, reward=z * stderr + noise), replace(rows, reward=np.zeros(400))
        )
        return difference

    zs = {"b": 2.170090, "a": 2.575829, "c": -2.053749}
    found = compare_all({name: with_p_value(z) for name, z in zs.items()})
    assert [
        (name, round(each.p_value, 5), round(each.adjusted, 5)) for name, each in found.items()
    ] == [
        ("b", 0.03, 0.06),
        ("a", 0.01, 0.03),
        ("c", 0.04, 0.06),
    ]
    assert [each.significant for each in found.values()] == [False, True, False]
