"""The learner against VW reading the equivalent text, and the promises that the fold relies on."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vowpal_wabbit_next import TextFormatParser, Workspace, run_cli_driver

from bandits.errors import InvalidInputError, InvalidPmfError, SnapshotError, SpecError
from bandits.features.hashing import hash_feature
from bandits.types import ActionSet, ChosenRow, Context, Interaction, Namespace, Snapshot, check_pmf
from bandits.vw.arguments import CLAIMED, read_arguments
from bandits.vw.config import MODEL_KIND, WEIGHTS_KIND
from bandits.vw.learner import (
    KNOWN,
    VwLearner,
    VwModel,
    VwWeights,
    decode_model,
    encode_model,
    load_vw,
)

Features = dict[str, dict[str, float]]  # by namespace

# One-model arguments, whose snapshot is their weights, and the others; with CLAIMED they cover
# every known option
PLAIN = [
    "",
    "-q ui --noconstant",
    "--cubic ugi --cb_type ips --softmax --lambda 2",
    "-q :: --cb_type dm --epsilon 0.2",
    "--squarecb --gamma_scale 3 --gamma_exponent 0.3 --sgd -l 0.01",
    "--first 5 --random_seed 3 --interactions uii us --power_t 0.1",
]
OTHERS = [
    "--bag 3 --greedify --epsilon 0.1",
    "--cover 3 --psi 0.5 --nounif -q ui",
    "--cb_type dr",
    "--rnd 3 --epsilon 0.1 --rnd_alpha 0.2 --rnd_invlambda 0.3 --random_seed 4",
    "--regcb --mellowness 0.01 --cb_min_cost -4 --cb_max_cost 4",
    "--synthcover --synthcoverpsi 0.2 --synthcoversize 30",
    "--cb_dro --cb_dro_alpha 0.1 --cb_dro_tau 0.9",
    "--l1 1e-3",
    "--l2 1e-3 --no_bias_regularization",
    "--ftrl --ftrl_alpha 0.1 --ftrl_beta 0.2",
    "--coin",
    "--pistol",
    "--freegrad",
    "--adax --sparse_l2 0.1",
    "--boosting 3 --gamma 0.1 --alg BBM",
    "--nn 3 --inpass",
    "--explore_eval --multiplier 0.1",
    "--epsilon_decay --model_count 3",
    "--automl 2",
    "--baseline --global_only",
    "--initial_weight 0.1",
    "--random_weights --random_seed 7",
    "--constant 0.5",
    "--loss_function quantile --quantile_tau 0.3",
    "--link logistic --rank_all",
    "--ignore_linear u g",
    "--leave_duplicate_interactions -q ui -q iu",
    "--permutations -q uu",
    "--interactions uiii uigs",
]


def full(args: str) -> str:
    return f"--cb_explore_adf -b 10 {args}".strip()


def rows(name: str, features: list[dict[str, float]]) -> Namespace:
    """One row of features per dict, padded with zeros to the longest."""
    width = max(len(row) for row in features)
    hashes = np.zeros((len(features), width), dtype=np.uint32)
    values = np.zeros((len(features), width), dtype=np.float32)
    for i, row in enumerate(features):
        hashes[i, : len(row)] = [hash_feature(name, feature) for feature in row]
        values[i, : len(row)] = list(row.values())
    return Namespace(name, hashes, values)


def line(features: Features) -> str:
    return (
        " ".join(
            f"|{name} " + " ".join(f"{f}:{v}" for f, v in fs.items())
            for name, fs in features.items()
        )
        or "|"
    )


class Case:
    """A random interaction in both forms.

    Its numbers are small integers: VW's parser rounds others its own way.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        def some(prefix: str) -> dict[str, float]:
            picked = rng.choice(6, size=rng.integers(0, 4), replace=False)
            return {f"{prefix}{i}": int(rng.integers(1, 5) * rng.choice([-1, 1])) for i in picked}

        count = int(rng.integers(1, 7))
        context = {"user": some("u"), "geo": some("g")}
        actions = [
            {"item": some("i"), "user": some("a"), "source": some("s")} for _ in range(count)
        ]
        chosen, cost, propensity = (
            int(rng.integers(count)),
            int(rng.integers(-4, 5)),
            float(rng.choice([0.5, 1.0])),
        )
        self.text = ["shared " + line(context), *(line(a) for a in actions)]
        self.text[1 + chosen] = f"0:{cost}:{propensity} {self.text[1 + chosen]}"
        shared = tuple(rows(name, [features]) for name, features in context.items())
        self.interaction = Interaction(
            event_id="e",
            slot=0,
            context=Context(tuple(Namespace(ns.name, ns.hashes[0], ns.values[0]) for ns in shared)),
            actions=ActionSet(
                tuple(str(i) for i in range(count)),
                tuple(rows(name, [a[name] for a in actions]) for name in actions[0]),
            ),
            chosen=chosen,
            propensity=propensity,
            reward=float(-cost),
        )


_RNG = np.random.default_rng(17)
CASES = [Case(_RNG) for _ in range(60)]
STREAM = [case.interaction for case in CASES]


def model_of(learner: VwLearner) -> bytes:
    model = msgspec.msgpack.decode(learner.checkpoint())["model"]
    assert isinstance(model, bytes)
    return model


@cache
def trained(args: str) -> VwLearner:
    """A learner of the whole stream; shared, so not to be taught more."""
    learner = VwLearner(full(args))
    learner.learn(STREAM)
    return learner


def own_exploration(args: str) -> Snapshot:
    return VwLearner(
        full(args), checkpoint=trained(args).checkpoint(), own_exploration=True
    ).snapshot("7-0")


def test_every_known_option_is_tried() -> None:
    tried = {name for args in PLAIN + OTHERS for name in read_arguments(full(args), KNOWN)}
    assert tried >= KNOWN.keys() - CLAIMED.keys()


@pytest.mark.parametrize("args", PLAIN + OTHERS)
def test_learning_gives_the_bytes_of_vw_reading_the_equivalent_text(args: str) -> None:
    oracle = Workspace([*full(args).split(), "--quiet", "--preserve_performance_counters"])
    parser = TextFormatParser(oracle)
    empty = oracle.serialize()
    for case in CASES:
        oracle.learn_one([parser.parse_line(text) for text in case.text])
    assert model_of(trained(args)) == oracle.serialize() != empty


def test_learning_gives_the_weights_of_vws_command_line(tmp_path: Path) -> None:
    data, model = tmp_path / "train.txt", tmp_path / "model"
    data.write_text("".join("\n".join(case.text) + "\n\n" for case in CASES))
    args = full("-q :: --cubic uig")
    run_cli_driver([*args.split(), "--quiet", "-d", str(data), "-f", str(model)])
    oracle = Workspace([*args.split(), "--quiet"], model_data=model.read_bytes())
    learned = trained("-q :: --cubic uig")._workspace.weights()
    # the fourth is scratch space
    assert np.array_equal(oracle.weights()[:, 0, :3], learned[:, 0, :3])


BY_ROW = [args for args in PLAIN + OTHERS if VwLearner(full(args), by_row=True).by_row]


def test_only_arguments_that_learn_from_the_chosen_action_alone_are_taught_it_alone() -> None:
    assert "" in BY_ROW
    for args in ("--cb_type dr", "--cb_type ips", "--squarecb", "--bag 2"):
        assert not VwLearner(f"--cb_explore_adf {args}", by_row=True).by_row
    assert not VwLearner("--cb_explore_adf", by_row=True, own_exploration=True).by_row


@pytest.mark.parametrize("args", BY_ROW)
def test_being_shown_the_chosen_action_alone_gives_the_same_weights_byte_for_byte(
    args: str,
) -> None:
    """With any number of actions, adaptive state included, also when resumed in between."""
    learner = VwLearner(full(args), by_row=True)
    learner.learn(STREAM[:25])
    learner = VwLearner(full(args), by_row=True, checkpoint=learner.checkpoint())
    for each in STREAM[25:]:
        own = [
            Namespace(ns.name, ns.cells()[each.chosen], ns.values[each.chosen])
            for ns in each.actions.namespaces
        ]
        learner.learn_row(
            ChosenRow(
                each.actions.ids[each.chosen],
                each.context.namespaces,
                own,
                each.reward,
                len(each.actions),
                each.propensity,
            )
        )
    expected = VwLearner(full(args))
    expected.learn(STREAM[:25])
    expected = VwLearner(full(args), checkpoint=expected.checkpoint())
    expected.learn(STREAM[25:])
    assert (
        learner._workspace.weights()[:, 0, :3].tobytes()
        == expected._workspace.weights()[:, 0, :3].tobytes()
    )
    assert learner.snapshot("1-0") == expected.snapshot("1-0")


@pytest.mark.parametrize("args", BY_ROW)
@pytest.mark.parametrize("own_first", [False, True])
def test_a_model_goes_on_as_it_was_taught_and_each_way_serves_the_same(
    args: str, own_first: bool
) -> None:
    """The exploration changes, there and back: weights and PMFs are as if it never had."""
    learner = VwLearner(full(args), by_row=True, own_exploration=own_first)
    first = learner.by_row
    learner.learn(STREAM[:15])
    for number, own in enumerate((not own_first, own_first), start=1):
        learner = VwLearner(
            full(args), by_row=True, own_exploration=own, checkpoint=learner.checkpoint()
        )
        assert learner.by_row is first
        learner.learn(STREAM[15 * number : 15 * (number + 1)])
    expected = {
        own: VwLearner(full(args), by_row=True, own_exploration=own) for own in (False, True)
    }
    for each in expected.values():
        each.learn(STREAM[:45])
    assert (
        learner._workspace.weights()[:, 0, :3].tobytes()
        == expected[False]._workspace.weights()[:, 0, :3].tobytes()
    )
    own_pmf = VwLearner(
        full(args), by_row=True, own_exploration=True, checkpoint=learner.checkpoint()
    ).snapshot("1-0")
    served, wanted = load_vw(own_pmf), load_vw(expected[True].snapshot("1-0"))
    assert isinstance(served, VwModel)
    assert isinstance(wanted, VwModel)
    for each in STREAM[:10]:
        assert (
            served.pmf(each.context, each.actions).tobytes()
            == wanted.pmf(each.context, each.actions).tobytes()
        )


def test_a_model_that_cannot_have_been_taught_by_row_is_refused() -> None:
    model = decode_model(trained("--cb_type dr").checkpoint())
    with pytest.raises(SnapshotError, match="not taught by row"):
        VwLearner(
            full("--cb_type dr"),
            checkpoint=encode_model(model.args, model.learned, 90, model.model),
        )


@pytest.mark.parametrize("args", PLAIN + OTHERS)
def test_any_split_and_any_snapshot_in_between_give_the_same_bytes(args: str) -> None:
    learner = VwLearner(full(args))
    for start, stop in [(0, 1), (1, 1), (1, 20), (20, 21), (21, len(STREAM))]:
        learner.learn(STREAM[start:stop])
        learner.snapshot("1-0")
        learner.checkpoint()
    assert learner.checkpoint() == trained(args).checkpoint()


@pytest.mark.parametrize("args", PLAIN + OTHERS)
def test_resuming_from_a_checkpoint_is_deterministic(args: str) -> None:
    half = VwLearner(full(args))
    half.learn(STREAM[:30])
    checkpoint = half.checkpoint()
    resumed = [VwLearner(full(args), checkpoint=checkpoint) for _ in range(2)]
    assert resumed[0].checkpoint() == checkpoint
    for learner in resumed:
        learner.learn(STREAM[30:])
    assert resumed[0].checkpoint() == resumed[1].checkpoint()
    assert resumed[0].learned == len(STREAM)
    if args in PLAIN:
        assert resumed[0].checkpoint() == trained(args).checkpoint()


@pytest.mark.parametrize("args", PLAIN + OTHERS)
def test_vws_own_pmf_is_pure_and_a_pmf(args: str) -> None:
    """Whatever was asked before, however often, and in whichever replica."""
    snapshot = own_exploration(args)
    assert (snapshot.kind, snapshot.position, snapshot.learned) == (MODEL_KIND, "7-0", len(STREAM))

    def ask(
        model: object, order: Callable[[list[Interaction]], list[Interaction]]
    ) -> dict[int, bytes]:
        assert isinstance(model, VwModel)
        return {id(i): check_pmf(model.pmf(i.context, i.actions)).tobytes() for i in order(STREAM)}

    replica = load_vw(snapshot)
    first = ask(replica, list)
    assert ask(replica, lambda stream: stream[::-1] * 3) == first
    assert ask(load_vw(snapshot), lambda stream: stream[20:] + stream[:20]) == first


@pytest.mark.parametrize("args", PLAIN)
def test_vws_pmf_is_in_the_order_of_the_actions(args: str) -> None:
    """Wherever VW prefers one action, it is the one with the best score."""
    model, weights = (
        load_vw(own_exploration(args)),
        load_vw(trained(args).snapshot("0-0")),
    )
    assert isinstance(model, VwModel)
    assert isinstance(weights, VwWeights)
    assert weights.learned == model.learned == len(STREAM)
    preferred = 0
    for interaction in STREAM:
        pmf = model.pmf(interaction.context, interaction.actions)
        scores = weights.scores(interaction.context, interaction.actions)
        if np.sum(pmf > pmf.max() - 1e-6) == 1 < len(pmf):
            preferred += 1
            assert scores[np.argmax(pmf)] >= scores.max() - 1e-5
    assert preferred > 20


@pytest.mark.parametrize(
    ("args", "kind"), [(a, WEIGHTS_KIND) for a in PLAIN] + [(a, MODEL_KIND) for a in OTHERS]
)
def test_a_snapshot_is_weights_where_that_is_exact(args: str, kind: str) -> None:
    assert trained(args).snapshot("0-0").kind == kind


def test_greedy_vw_learns_which_action_is_better() -> None:
    good, bad = rows("item", [{"good": 1.0}, {"bad": 1.0}]), ActionSet(("a", "b"))
    actions = ActionSet(bad.ids, (good,))
    learner = VwLearner("--cb_explore_adf --epsilon 0")
    learner.learn(
        [Interaction("e", 0, Context(), actions, i % 2, 0.5, 1.0 - i % 2) for i in range(40)]
    )
    scorer = load_vw(learner.snapshot("0-0"))
    assert isinstance(scorer, VwWeights)
    scores = scorer.scores(Context(), actions)
    assert scores[0] > scores[1]


BAD = """
    -f model; -fmodel; --final_regressor=model; -i model; -d data; --data data; data
    --noconstant data; -c; -p out; -r out; --cache_file x; --audit; -a; --readable_model x
    --daemon; --feature_mask x; --dictionary x; -t; -h; --cb_type -f model; --invert_hash x
    --help; --version; --ksvm; --noop; --sparse_weights; --regcbopt; --lrq ui3
    --large_action_space; --nn 2 --dropout; --ignore u; --ngram 2; --epsilon; --epsilon 2
    --epsilon=; --noconstant=1; -b 0; -b 27; -b x; -b 10 -b 11; --cb_type xx; -q abc
    --cover 2 --bag 2; --no_such_option; --; -
"""


@pytest.mark.parametrize(
    "args",
    [
        "",
        "--cb_adf",
        "--ccb_explore_adf",
        *(f"--cb_explore_adf {bad.strip()}" for bad in BAD.strip().replace("\n", ";").split(";")),
    ],
)
def test_bad_arguments_are_refused_in_one_line(
    args: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").write_text("1 | a\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError) as caught:
        VwLearner(args)
    assert caught.value.target == "learner.args"
    assert "\n" not in caught.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_checkpoint_of_other_arguments_is_refused() -> None:
    with pytest.raises(SnapshotError):
        VwLearner(full("--epsilon 0.1"), checkpoint=trained("").checkpoint())


@pytest.mark.parametrize("args", ["", "--bag 2"])
@given(data=st.data())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_corrupt_bytes_are_an_error_not_a_crash(args: str, data: st.DataObject) -> None:
    learner = trained(args)
    checkpoint, snapshot = learner.checkpoint(), learner.snapshot("0-0")
    if data.draw(st.booleans(), label="cut"):
        cut = data.draw(st.integers(0, len(checkpoint) - 1))
        broken, payload = checkpoint[:cut], snapshot.payload[: cut % len(snapshot.payload)]
    else:
        at, bits = data.draw(st.integers(0, len(checkpoint) - 1)), data.draw(st.integers(1, 255))
        broken = checkpoint[:at] + bytes([checkpoint[at] ^ bits]) + checkpoint[at + 1 :]
        payload = broken
    with pytest.raises(SnapshotError):
        VwLearner(full(args), checkpoint=broken)
    with pytest.raises(SnapshotError):
        load_vw(Snapshot(snapshot.kind, "0-0", 1, payload))


def test_snapshots_that_do_not_hold_together_are_refused() -> None:
    def weights(args: str, indices: bytes, values: bytes) -> Snapshot:
        payload = msgspec.msgpack.encode({"args": args, "indices": indices, "values": values})
        return Snapshot(WEIGHTS_KIND, "0-0", 0, payload)

    def little(number: float, dtype: str) -> bytes:
        return np.array([number], dtype=dtype).tobytes()

    one, plain = little(1.0, "<f4"), full("")
    assert isinstance(load_vw(weights(plain, little(1023, "<u4"), one)), VwWeights)
    for snapshot in [
        Snapshot("ridge", "0-0", 0, b""),
        weights(plain, little(1024, "<u4"), one),
        weights(plain, little(1, "<u4") * 2, one * 2),
        weights(plain, little(1, "<u4"), one[:3]),
        weights(plain, little(1, "<u4")[:2], one[:2]),
        weights(plain, little(1, "<u4"), little(np.nan, "<f4")),
        weights(full("--bag 2"), little(1, "<u4"), one),
        weights("--cb_explore_adf -f model", little(1, "<u4"), one),
    ]:
        with pytest.raises(SnapshotError):
            load_vw(snapshot)


@pytest.mark.parametrize(
    ("change", "target"),
    [
        ({"chosen": 9}, "chosen"),
        ({"chosen": -1}, "chosen"),
        ({"propensity": 0.0}, "propensity"),
        ({"propensity": 1.5}, "propensity"),
        ({"propensity": float("nan")}, "propensity"),
        ({"reward": float("inf")}, "reward"),
        ({"context": Context((rows("user", [{"u": float("nan")}]),))}, "features.user"),
    ],
)
def test_a_bad_interaction_is_refused_and_nothing_is_learned(
    change: dict[str, object], target: str
) -> None:
    learner = VwLearner(full(""), checkpoint=trained("").checkpoint())
    before = learner.checkpoint()
    good = STREAM[0]
    bad = Interaction(**{name: getattr(good, name) for name in Interaction.__slots__} | change)
    with pytest.raises(InvalidInputError) as caught:
        learner.learn([good, bad])
    assert caught.value.target == target
    assert learner.checkpoint() == before


def test_no_actions_have_no_pmf() -> None:
    model = load_vw(own_exploration(""))
    assert isinstance(model, VwModel)
    with pytest.raises(InvalidPmfError):
        model.pmf(Context(), ActionSet(()))
