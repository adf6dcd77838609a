"""The numpy scorer against VW's own sums, over random models, decisions and argument strings."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.strategies import MANY
from vowpal_wabbit_next import DebugNode, Workspace

from bandits.errors import SnapshotError, SpecError
from bandits.types import ActionSet, Context, Float32, Float64, Interaction, Namespace
from bandits.vw.arguments import CLAIMED, read_arguments
from bandits.vw.examples import Examples
from bandits.vw.learner import VwLearner, VwWeights, load_vw
from bandits.vw.weights import ScorerPlan, WeightScorer, expand, parse_arguments

# Every claimed option; interactions in each of the ways to write them: repeated, mirrored, of one
# namespace, wildcards
ARGUMENTS = [
    "",
    "--noconstant --quiet --preserve_performance_counters",
    "-q ui --epsilon 0.2 --cb_type mtr --id x --holdout_off",
    "-q iu -qui --cb_type ips --strict_parse --chain_hash --hash all",
    "-q uu --quadratic ii --cb_type dm --random_seed 7",
    "--quadratic=ui uu --noconstant --first 3 --first_only",
    "--cubic uis --softmax --lambda 3 -l 0.1",
    "--cubic uuu --cubic iii -q is --adaptive",
    "--interactions siu iui ssu --sgd --power_t 0.3 --initial_t 1",
    "--interactions is si sii isi --normalized --invariant --learning_rate 0.3",
    "-q :: --squarecb --gamma_scale 10 --gamma_exponent 0.4 --elim",
    "-q :: -q ui -q su --cb_min_cost -1 --cb_max_cost 0 --squarecb",
    "-q u: -q :s --clip_p 0.1 --decay_learning_rate 0.9",
    "--cubic ::: --noconstant",
    "--cubic i:: --cubic :u: --cubic ::_",
    "--interactions :u u: :iu xu --cubic x:u",
    "-q -u --bit_precision 12",
]
# First letters shared by several namespaces, the nameless one, bytes that a wildcard does not match
NAMES = ["user", "u2", "item", "i2", "score", "", "_", "xyz", "-q", "Über", "\x7f"]


@dataclass
class Oracle:
    """One workspace per argument string, its weights replaced: making one takes 30 ms."""

    workspace: Workspace[bool]
    examples: Examples
    plan: ScorerPlan

    def costs(self, context: Context, actions: ActionSet) -> Float64:
        _, root = self.workspace.predict_one(self.examples.fill(context, actions))
        return np.array([leaf.partial_prediction for leaf in leaves(root)])

    def interactions(self, context: Context, actions: ActionSet) -> set[str]:
        _, root = self.workspace.predict_one(self.examples.fill(context, actions))
        return set(leaves(root)[0].interactions)


def leaves(node: DebugNode) -> list[DebugNode]:
    return [leaf for child in node.children for leaf in leaves(child)] or [node]


@cache
def oracle_of(args: str, bits: int) -> Oracle:
    text = (
        f"--cb_explore_adf {args}"
        if "bit_precision" in args
        else f"--cb_explore_adf -b {bits} {args}"
    )
    plan = parse_arguments(text)
    assert plan is not None
    workspace = Workspace([*text.split(), "--quiet"], enable_debug_tree=True)
    assert workspace.weights().shape[:2] == (1 << plan.bits, 1)
    return Oracle(workspace, Examples(plan.bits), plan)


def random_namespace(rng: np.random.Generator, name: str, rows: int | None) -> Namespace:
    """Any mixture of sizes, signs, padding, and hashes per row or for all rows.

    Rows is None for a context.
    """
    width = int(rng.integers(0, 5))
    shape = (width,) if rows is None else (rows, width)
    values = rng.normal(scale=10.0 ** rng.integers(-3, 3), size=shape).astype(np.float32)
    values[rng.random(shape) < rng.choice([0.0, 0.3])] = 0.0
    hash_shape = shape if rng.random() < 0.5 else (width,)
    return Namespace(name, rng.integers(0, 2**32, size=hash_shape, dtype=np.uint32), values)


def random_decision(rng: np.random.Generator, count: int) -> tuple[Context, ActionSet]:
    of_context = rng.choice(NAMES, size=rng.integers(0, 4), replace=False)
    of_actions = rng.choice(NAMES, size=rng.integers(0, 4), replace=False)
    return (
        Context(tuple(random_namespace(rng, str(name), None) for name in of_context)),
        ActionSet(
            tuple(str(i) for i in range(count)),
            tuple(random_namespace(rng, str(name), count) for name in of_actions),
        ),
    )


def scorer_of(plan: ScorerPlan, weights: Float32) -> WeightScorer:
    indices = np.flatnonzero(weights)
    return WeightScorer(plan, indices.astype(np.uint32), weights[indices])


def float32_error(
    plan: ScorerPlan, weights: Float32, context: Context, actions: ActionSet
) -> Float64:
    """How far VW's sums may be from exact: a term is rounded 3 times, and once per later term.

    Higham, Accuracy and Stability of Numerical Algorithms, eq. 4.4: (n - 1) u times the sum of the
    terms' sizes.
    """

    def total(weight: Float32, values: Callable[[Float32], Float32]) -> Float64:
        def apply(namespaces: tuple[Namespace, ...]) -> tuple[Namespace, ...]:
            return tuple(msgspec.structs.replace(ns, values=values(ns.values)) for ns in namespaces)

        shared, own = (
            Context(apply(context.namespaces)),
            ActionSet(actions.ids, apply(actions.namespaces)),
        )
        return -scorer_of(plan, weight).scores(shared, own)

    terms = total(np.ones_like(weights), lambda values: (values != 0).astype(np.float32))
    sizes = total(np.abs(weights), np.abs)
    error: Float64 = (terms + 3) * 2.0**-24 * sizes + 1e-30
    return error


@given(
    args=st.sampled_from(ARGUMENTS),
    bits=st.sampled_from([5, 10]),
    count=st.integers(1, 6),
    density=st.sampled_from([0.1, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
@example(args="-q ::", bits=10, count=200, density=1.0, seed=1)
@settings(max_examples=MANY)
def test_scores_are_vws_own_sums(
    args: str, bits: int, count: int, density: float, seed: int
) -> None:
    oracle = oracle_of(args, bits)
    rng = np.random.default_rng(seed)
    size = 1 << oracle.plan.bits
    weights = rng.normal(scale=10.0 ** rng.integers(-3, 3), size=size).astype(np.float32)
    weights[rng.random(size) > density] = 0.0
    oracle.workspace.weights()[:, 0, 0] = weights
    scorer = scorer_of(oracle.plan, weights)
    for _ in range(2):
        context, actions = random_decision(rng, count)
        scores = scorer.scores(context, actions)
        assert scores.dtype == np.float64
        error = np.abs(-scores - oracle.costs(context, actions))
        assert (error <= float32_error(oracle.plan, weights, context, actions)).all()


@pytest.mark.parametrize("args", ARGUMENTS)
def test_scores_of_a_trained_model_are_vws_own(args: str) -> None:
    """Through the snapshot, with scores far beyond the costs seen so far: VW does not clip them."""
    rng = np.random.default_rng(5)
    text = f"--cb_explore_adf {args}"
    learner = VwLearner(text)
    stream = [random_decision(rng, int(rng.integers(1, 6))) for _ in range(30)]
    for context, actions in stream:
        chosen = int(rng.integers(len(actions)))
        learner.learn(
            [Interaction("e", 0, context, actions, chosen, 0.5, float(rng.normal(scale=0.01)))]
        )
    weights = learner._workspace.weights()[:, 0, 0]
    weights *= 1000
    replica = load_vw(learner.snapshot("0-0"))
    assert isinstance(replica, VwWeights)
    model = Workspace(
        [*text.split(), "--quiet"],
        model_data=learner._workspace.serialize(),
        enable_debug_tree=True,
    )
    oracle = Oracle(model, learner._examples, replica.scorer.plan)
    for context, actions in stream:
        error = np.abs(-replica.scores(context, actions) - oracle.costs(context, actions))
        assert (error <= float32_error(oracle.plan, weights, context, actions)).all()


def test_every_claimed_option_is_tried() -> None:
    tried = {
        name
        for args in ARGUMENTS
        for name in read_arguments(f"--cb_explore_adf -b 10 {args}", CLAIMED)
    }
    assert tried == set(CLAIMED)


@pytest.mark.parametrize("args", ARGUMENTS)
def test_interactions_are_expanded_as_vw_expands_them(args: str) -> None:
    def one(name: str) -> Namespace:
        return Namespace(name, np.array([1], dtype=np.uint32), np.array([1.0], dtype=np.float32))

    oracle = Oracle(
        Workspace(["--cb_explore_adf", "--quiet", *args.split()], enable_debug_tree=True),
        Examples(18),
        parse_arguments(f"--cb_explore_adf {args}") or ScorerPlan(),
    )
    present = frozenset(b"uis_x-")
    context = Context(tuple(one(chr(letter)) for letter in present))
    ours = {i.decode() for i in expand(oracle.plan.interactions, present)}
    assert ours == {
        i for i in oracle.interactions(context, ActionSet(("a",))) if present.issuperset(i.encode())
    }


@pytest.mark.parametrize(
    "args",
    [
        *(
            "--bag 3",
            "--cover 3",
            "--rnd 3",
            "--cb_type dr",
            "--cb_type sm",
            "--regcb",
            "--l1 1e-3",
            "--l2 1e-3",
        ),
        *(
            "--link logistic",
            "--nn 3",
            "--boosting 2",
            "--ignore_linear u",
            "--permutations -q uu",
            "--ftrl",
            "--coin",
        ),
        *(
            "--leave_duplicate_interactions",
            "--interactions uuii",
            "--interactions u",
            "-q ué",
            "-q u|",
            "-q \\x75i",
        ),
        *(
            "--initial_weight 1",
            "--sparse_weights",
            "--no_such_option",
            "word",
            "-b 0",
            "-b 40",
            "-b 10 -b 11",
            "-q",
        ),
    ],
)
def test_what_is_not_known_to_be_exact_is_not_claimed(args: str) -> None:
    assert parse_arguments(f"--cb_explore_adf {args}") is None


def test_what_is_not_cb_explore_adf_is_not_claimed() -> None:
    assert parse_arguments("--cb_adf -q ui") is None
    assert parse_arguments("-q ui") is None


def test_arguments_are_split_as_vw_splits_them() -> None:
    options = read_arguments(
        "--cb_explore_adf -q ui us --epsilon=0.1 --cb_min_cost -1 -qis -l .5", CLAIMED
    )
    assert options == {
        "cb_explore_adf": [],
        "quadratic": ["ui", "us", "is"],
        "epsilon": ["0.1"],
        "cb_min_cost": ["-1"],
        "learning_rate": [".5"],
    }
    with pytest.raises(SpecError, match="belongs to no option"):
        read_arguments("--noconstant 3", CLAIMED)


def _random_scorer(args: str, seed: int) -> WeightScorer:
    plan = parse_arguments(f"--cb_explore_adf {args}")
    assert plan is not None
    return scorer_of(
        plan, np.random.default_rng(seed).normal(size=1 << plan.bits).astype(np.float32)
    )


@pytest.mark.parametrize("args", ARGUMENTS)
def test_scores_are_pure_and_follow_the_actions(args: str) -> None:
    """The same bytes each time, and in each order of the actions."""
    rng = np.random.default_rng(2)
    scorer = _random_scorer(args, 3)
    for _ in range(5):
        context, actions = random_decision(rng, 50)
        order = rng.permutation(50)
        scores = scorer.scores(context, actions)
        assert scorer.scores(context, actions).tobytes() == scores.tobytes()
        assert scorer.scores(context, actions.take(order)).tobytes() == scores[order].tobytes()


def test_padding_contributes_nothing() -> None:
    rng = np.random.default_rng(4)
    scorer = _random_scorer("-q :: --cubic iii", 5)

    def pad(namespace: Namespace) -> Namespace:
        zeros = np.zeros((*namespace.values.shape[:-1], 3), dtype=np.float32)
        hashes = np.ones((*namespace.hashes.shape[:-1], 3), dtype=np.uint32)
        return Namespace(
            namespace.name,
            np.concatenate([namespace.hashes, hashes], axis=-1),
            np.concatenate([namespace.values, zeros], axis=-1),
        )

    context, actions = random_decision(rng, 10)
    padded = scorer.scores(
        Context(tuple(map(pad, context.namespaces))),
        ActionSet(actions.ids, tuple(map(pad, actions.namespaces))),
    )
    assert padded == pytest.approx(scorer.scores(context, actions), rel=1e-12, abs=1e-12)


def test_without_features_a_score_is_the_constant() -> None:
    assert _random_scorer("", 6).scores(Context(), ActionSet(("a", "b"))).std() == 0.0
    assert _random_scorer("--noconstant", 6).scores(Context(), ActionSet(("a",))).tolist() == [0.0]


@pytest.mark.parametrize(
    ("indices", "values"),
    [
        ([1, 1], [1.0, 1.0]),
        ([2, 1], [1.0, 1.0]),
        ([32], [1.0]),
        ([1], [1.0, 2.0]),
        ([1], [np.inf]),
        ([1], [np.nan]),
    ],
)
def test_weights_that_do_not_hold_together_are_refused(
    indices: list[int], values: list[float]
) -> None:
    with pytest.raises(SnapshotError):
        WeightScorer(
            ScorerPlan(bits=5),
            np.array(indices, dtype=np.uint32),
            np.array(values, dtype=np.float32),
        )
