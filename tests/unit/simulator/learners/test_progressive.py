"""Progressive replay against VW's own command line and against sums done by hand.

Rejection replay on known logs.
"""

import gzip
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from vowpal_wabbit_next import Workspace, run_cli_driver

from bandits.errors import BadRowError, InvalidFieldError, ReplayError, SnapshotError, SpecError
from bandits.exploration import EpsilonGreedy, Greedy, LinTs, Softmax, VwExploration
from bandits.log.records import DecisionRecord
from bandits.ridge.config import RidgeConfig
from bandits.types import Interaction
from bandits.vw.config import VwConfig
from policies.blend import load_policy, make_learner
from policies.features import featurise
from policies.items.catalogue import Catalogue
from policies.spec import ArtifactSource, PolicySpec
from simulator.learners.curve import MAX_POINTS, Curve
from simulator.learners.online import OnlinePolicy, salt_of
from simulator.learners.progressive import progressive, vw_progressive
from simulator.learners.rejection import rejection
from simulator.logs.dsjson import dsjson_pieces
from simulator.logs.rows import LogBatch, LoggedDecision, batch_of
from simulator.logs.vw_text import text_pieces

VW = "--cb_explore_adf -q ui"
EXPLORATIONS = [
    "--epsilon 0.2",
    "--squarecb",
    "--squarecb --elim --cb_type mtr",
    "--regcb --cb_min_cost -1 --cb_max_cost 0",
    "--cover 3",
    "--bag 4",
    "--bag 3 --random_seed 5",
    "--first 20",
    "--softmax --lambda 5",
    "--synthcover",
    "--rnd 2",
    "--cb_type dr",
    "--cb_type ips --epsilon 0",
    "--hash_seed 3 --stage_poly",
    "--affix +2i --redefine x:=i -q ux",
]


@dataclass
class Rows:
    """A piece of rows that are there already."""

    rows: list[LoggedDecision]
    skipped: int = 0

    def batches(self) -> Iterator[LogBatch]:
        for start in range(0, len(self.rows), 7):
            yield batch_of(self.rows[start : start + 7])


def logged(count=300, actions=4, seed=0, *, uniform=False) -> list[LoggedDecision]:
    """Action "1" is good for even users, "2" for odd ones."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        user = int(rng.integers(4))
        pmf = (
            np.full(actions, 1 / actions)
            if uniform
            else rng.dirichlet(np.ones(actions)) * 0.8 + 0.2 / actions
        )
        chosen = int(rng.choice(actions, p=pmf))
        reward = float(rng.random() < (0.9 if chosen == user % 2 else 0.2))
        context = {"u.user": f"u{user}"}
        features = [{f"i.a{k}": 1.0, "i.price": k / 4} for k in range(actions)]
        ids = [str(k + 1) for k in range(actions)]
        rows.append(
            LoggedDecision(
                f"e{number}", context, ids, chosen, float(pmf[chosen]), reward, features, pmf=pmf
            )
        )
    return rows


def text_of(rows: list[LoggedDecision]) -> list[str]:
    """The rows as VW examples."""
    out = []
    for row in rows:
        lines = [f"shared |u {row.context['u.user']}"]
        for k, features in enumerate(row.features or ()):
            label = f"0:{-row.reward}:{row.propensity:.6f} " if k == row.chosen else ""
            lines.append(
                f"{label}|i " + " ".join(f"{name[2:]}:{value}" for name, value in features.items())
            )
        out.append("\n".join(lines) + "\n\n")
    return out


def dsjson_of(rows: list[LoggedDecision]) -> list[str]:
    return [
        json.dumps(
            {
                "_label_cost": -row.reward,
                "_label_probability": round(row.propensity, 6),
                "_label_Action": row.chosen + 1,
                "_labelIndex": row.chosen,
                "EventId": row.event_id,
                "a": [
                    row.chosen + 1,
                    *(k + 1 for k in range(len(row.action_ids)) if k != row.chosen),
                ],
                "c": {
                    "u": {"user": row.context["u.user"]},
                    "_multi": [
                        {"i": {name[2:]: value for name, value in each.items()}}
                        for each in row.features or ()
                    ],
                },
                "pdrop": 0.5 if number % 3 == 0 else 0.0,
            }
        )
        + "\n"
        for number, row in enumerate(rows)
    ]


ROWS = logged()
FORMATS = {"text": text_of, "dsjson": dsjson_of}


def write(path: Path, examples: list[str]) -> Path:
    path.write_text("".join(examples))
    return path


def driver(path: Path, args: str, log_format: str = "text") -> float:
    """What VW's command line prints."""
    words = [*args.split(), "-d", str(path), *(["--dsjson"] if log_format == "dsjson" else [])]
    found = re.search(r"average loss = (\S+)", run_cli_driver(words, onethread=True)[0])
    assert found is not None
    return math.nan if found[1] == "n.a." else float(found[1])


@pytest.mark.parametrize("log_format", FORMATS)
@pytest.mark.parametrize("args", EXPLORATIONS)
def test_the_average_loss_is_that_of_vws_command_line(tmp_path, args, log_format):
    """The loss is that of a new model or a saved one, with and without saying its options again."""
    examples = FORMATS[log_format](ROWS)
    first, second = (
        write(tmp_path / "first", examples[:150]),
        write(tmp_path / "second", examples[150:]),
    )
    full, model = f"{VW} {args}", tmp_path / "model"
    expected = driver(first, f"{full} -f {model}", log_format)
    found = vw_progressive(first, full, log_format)
    assert found.average_loss == pytest.approx(expected, abs=1e-5)
    assert (found.examples, found.labelled, found.skipped) == (150, 150, 0)
    assert found.curve[-1].value == found.average_loss
    expected = driver(second, f"-i {model}", log_format)
    assert vw_progressive(second, "", log_format, model=model).average_loss == pytest.approx(
        expected, abs=1e-5
    )
    if "random_seed" not in args:
        again = vw_progressive(second, full, log_format, model=model)
        assert again.average_loss == pytest.approx(expected, abs=1e-5)
    assert expected != pytest.approx(
        vw_progressive(second, full, log_format).average_loss, abs=1e-5
    )


def test_the_curve_is_the_average_loss_of_every_start_of_the_file(tmp_path):
    examples = text_of(ROWS)
    path = write(tmp_path / "log", examples)
    for point in vw_progressive(path, VW, "text").curve[::60]:
        start = write(tmp_path / "start", examples[: point.rows])
        assert point.value == pytest.approx(driver(start, VW), abs=1e-5)


@pytest.mark.parametrize("log_format", FORMATS)
def test_without_labels_the_average_loss_is_none(tmp_path, log_format):
    empty = vw_progressive(write(tmp_path / "empty", []), VW, log_format)
    assert (empty.examples, empty.curve) == (0, ())
    examples = [
        re.sub(r'0:\S+ |"_label[^,]*, ', "", each) for each in FORMATS[log_format](ROWS[:5])
    ]
    path = write(tmp_path / "log", examples)
    found = vw_progressive(path, VW, log_format)
    assert (found.examples, found.labelled) == (5, 0)
    assert all(
        map(math.isnan, (empty.average_loss, found.average_loss, driver(path, VW, log_format)))
    )


@pytest.mark.parametrize("log_format", FORMATS)
def test_an_example_without_a_label_is_predicted_only(tmp_path, log_format):
    examples = FORMATS[log_format](ROWS)
    for number in range(0, 300, 4):
        examples[number] = re.sub(r'0:\S+ |"_label[^,]*, ', "", examples[number])
    path = write(tmp_path / "log", examples)
    found = vw_progressive(path, f"{VW} --first 50", log_format)
    assert found.average_loss == pytest.approx(
        driver(path, f"{VW} --first 50", log_format), abs=1e-5
    )
    assert (found.examples, found.labelled) == (300, 225)


def test_what_vws_command_line_leaves_out_of_dsjson_is_left_out(tmp_path):
    """Dangling observations and decisions not to learn from in silence, malformed lines counted."""
    examples = dsjson_of(ROWS)
    examples[10:10] = [
        '{"EventId":"e","RewardValue":1.0}\n',
        examples[0].replace('{"', '{"_skipLearn":true,"', 1),
    ]
    good = write(tmp_path / "good", examples)
    expected = driver(good, VW, "dsjson")
    found = vw_progressive(good, VW, "dsjson")
    assert (found.examples, found.skipped) == (300, 0)
    assert found.average_loss == pytest.approx(expected, abs=1e-5)
    bad = ['{"a":[\n', "junk\n", examples[5].replace('"_multi": [{', '"_multi": [5, {')]
    path = write(tmp_path / "log", [*examples[:100], *bad, *examples[100:]])
    found = vw_progressive(path, VW, "dsjson", skip_bad=True)
    assert (found.examples, found.skipped) == (300, 3)
    assert found.average_loss == pytest.approx(driver(path, VW, "dsjson"), abs=1e-5)
    assert found.average_loss == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("log_format", "old", "new", "line"),
    [
        ("text", "\n0:", "\nx:", "labelled"),
        ("text", "\n0:", "\n0:1:0.5 0:", "labelled"),
        ("text", "\n0:", "\n0:x", "labelled"),
        ("text", "shared", "0:1:0.5", "labelled"),
        ("text", "|u", "|u \xff", "first"),
        ("dsjson", '"_label_cost": ', '"_label_cost": "x", "y": ', "first"),
        ("dsjson", '"_label_probability": ', '"_label_probability": 2, "y": ', "first"),
        ("dsjson", '"_label_cost": ', '"_label_cost": 1e13, "y": ', "first"),
        ("dsjson", '"_labelIndex": ', '"y": ', "first"),
        ("dsjson", '"_multi": [{', '"_multi": [5, {', "first"),
        ("dsjson", '"user": "', '"user": "\xff', "first"),
    ],
)
def test_a_malformed_example_is_refused_by_line_or_left_out(tmp_path, log_format, old, new, line):
    examples = FORMATS[log_format](ROWS[:40])
    bad = examples[20].replace(old, new, 1)
    assert bad != examples[20]
    path = tmp_path / "log"
    path.write_bytes("".join([*examples[:20], bad, *examples[21:]]).encode("latin-1"))
    with pytest.raises(BadRowError) as caught:
        vw_progressive(path, VW, log_format)
    at = "".join(examples[:20]).count("\n") + 1
    at += examples[20][: examples[20].index("\n0:") + 1].count("\n") if line == "labelled" else 0
    assert caught.value.message.startswith(f"{path}, line {at}: ")
    found = vw_progressive(path, VW, log_format, skip_bad=True)
    assert (found.examples, found.skipped) == (39, 1)
    without = write(tmp_path / "without", [*examples[:20], *examples[21:]])
    assert found.average_loss == pytest.approx(driver(without, VW, log_format), abs=1e-5)


@pytest.mark.parametrize("log_format", FORMATS)
def test_a_compressed_log_has_the_same_average_loss(tmp_path, log_format):
    path = write(tmp_path / "log", FORMATS[log_format](ROWS))
    packed = tmp_path / "log.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert vw_progressive(packed, VW, log_format) == vw_progressive(path, VW, log_format)


def test_a_label_that_vw_would_not_see_is_refused(tmp_path):
    """VW reads dsjson from left to right, and ignores a label that comes after the features."""
    late = json.loads(dsjson_of(ROWS[:1])[0])
    path = write(tmp_path / "log", [json.dumps({"c": late.pop("c"), **late})])
    with pytest.raises(BadRowError, match=r"line 1: .*before the features"):
        vw_progressive(path, VW, "dsjson")
    assert math.isnan(driver(path, VW, "dsjson"))


def test_arguments_and_models_that_vw_cannot_use_are_refused(tmp_path):
    path = write(tmp_path / "log", text_of(ROWS[:3]))
    for args in (
        "",
        "--cb_adf",
        f"{VW} --passes 2",
        f"{VW} --preserve_performance_counters",
        f"{VW} --epsilon 7",
    ):
        with pytest.raises(SpecError):
            vw_progressive(path, args, "text")
    model = tmp_path / "model"
    with pytest.raises(ReplayError, match="model"):
        vw_progressive(path, VW, "text", model=model)
    model.write_bytes(b"")
    with pytest.raises(SnapshotError):
        vw_progressive(path, VW, "text", model=model)
    model.write_bytes(Workspace(["--quiet"]).serialize())
    with pytest.raises((SpecError, SnapshotError)):
        vw_progressive(path, "", "text", model=model)
    with pytest.raises(ReplayError, match="missing"):
        vw_progressive(tmp_path / "missing", VW, "text")


def spec_of(**changes) -> PolicySpec:
    settings = {
        "learner": RidgeConfig(interactions=[("context", "features")]),
        "exploration": LinTs(scale=0.2),
    }
    return PolicySpec("toy", **(settings | changes))


SPECS = [
    spec_of(),
    spec_of(exploration=Softmax(temperature=0.2), floor=0.0),
    spec_of(learner=VwConfig("--cb_explore_adf -q cf"), exploration=EpsilonGreedy(epsilon=0.1)),
    spec_of(learner=VwConfig("--cb_explore_adf -q cf --bag 2"), exploration=VwExploration()),
]


def by_hand(spec: PolicySpec, rows: list[LoggedDecision], publish_every: int, counts: list[float]):
    """IPS and SNIPS from the definition."""
    learner = make_learner(spec, salt=salt_of(3))
    policy = load_policy(spec, learner.snapshot("0-0"))
    weights, seen = [], []
    for row in rows:
        context, actions = featurise(
            spec, Catalogue(), row.context, row.action_ids, row.features, {}
        )
        weights.append(policy.pmf(context, actions)[row.chosen] / row.propensity)
        seen.append(
            Interaction(row.event_id, 0, context, actions, row.chosen, row.propensity, row.reward)
        )
        if len(seen) % publish_every == 0:
            learner.learn(seen[-publish_every:])
            policy = load_policy(spec, learner.snapshot(f"{len(seen)}-0"))
    weights, rewards, counts = (
        np.array(weights),
        np.array([row.reward for row in rows]),
        np.array(counts),
    )
    return (counts * weights * rewards).sum() / counts.sum(), np.average(
        rewards, weights=counts * weights
    )


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("publish_every", [1, 40])
def test_the_progressive_value_is_that_of_its_definition(spec, publish_every):
    rows = ROWS[:120]
    found = progressive(
        spec, [Rows(rows[:50], skipped=2), Rows(rows[50:])], publish_every=publish_every, seed=3
    )
    ips, snips = by_hand(spec, rows, publish_every, [1.0] * 120)
    assert (found.rows, found.skipped) == (120, 2)
    assert found.ips == pytest.approx(ips, rel=1e-12)
    assert found.snips == pytest.approx(snips, rel=1e-12)
    assert found.ips_curve[-1].value == found.ips
    assert found.snips_curve[-1].value == found.snips
    assert found == progressive(spec, [Rows(rows, skipped=2)], publish_every=publish_every, seed=3)


def test_a_row_that_stands_for_several_decisions_counts_as_that_many(tmp_path):
    path = write(tmp_path / "log", dsjson_of(ROWS[:60]))
    found = progressive(SPECS[1], dsjson_pieces(path, piece_bytes=4000), publish_every=1, seed=3)
    rows = [
        row for piece in dsjson_pieces(path) for batch in piece.batches() for row in batch.decisions
    ]
    counts = [2.0 if number % 3 == 0 else 1.0 for number in range(60)]
    assert (found.ips, found.snips) == pytest.approx(by_hand(SPECS[1], rows, 1, counts), rel=1e-12)


def test_the_progressive_value_of_a_vw_policy_is_minus_vws_average_loss(tmp_path):
    """VW earns as much reading the log itself as through this project's rows and features."""
    path = write(tmp_path / "log", [re.sub(r" price:\S+", "", each) for each in text_of(ROWS)])
    spec = spec_of(
        learner=VwConfig("--cb_explore_adf --epsilon 0.2"),
        exploration=VwExploration(),
        floor=0.0,
        use=["features"],
    )
    found = progressive(spec, text_pieces(path), publish_every=1)
    lines = re.sub(r"shared.*\n", "", path.read_text())
    expected = vw_progressive(
        write(tmp_path / "plain", [lines]), "--cb_explore_adf --epsilon 0.2", "text"
    )
    assert found.ips == pytest.approx(-expected.average_loss, abs=1e-5)


def test_a_policy_that_learns_does_better_towards_the_end():
    curve = progressive(SPECS[2], [Rows(logged(2000, uniform=True))]).snips_curve
    untaught = [point for point in curve if point.rows <= 100]
    assert untaught[-1].value < 0.5  # uniform: 0.375
    assert np.mean([point.recent for point in curve[len(curve) // 2 :]]) > 0.7


def test_no_row_is_predicted_by_a_model_that_has_seen_it():
    """Of two actions nobody has seen, a greedy policy takes either.

    Had it seen the row, it would take the good one.
    """
    rows = [LoggedDecision(f"e{n}", {}, [f"a{n}", f"b{n}"], n % 2, 0.5, 1.0) for n in range(20)]
    spec = spec_of(exploration=Greedy(), floor=0.0, use=["item"])
    assert progressive(spec, [Rows(rows)], publish_every=1).ips == pytest.approx(1.0)
    assert progressive(spec, [Rows(rows + rows)], publish_every=1).ips == pytest.approx(1.5)


def test_an_empty_log_has_no_value():
    found, thinned = progressive(SPECS[0], [Rows([])]), rejection(SPECS[0], [])
    assert (found.rows, found.ips_curve, thinned.rows, thinned.accepted) == (0, (), 0, 0)
    assert all(map(math.isnan, (found.ips, found.snips, thinned.mean_accepted_reward)))


def test_a_row_of_the_projects_own_log_keeps_its_source_scores():
    scores = {"cf": np.array([0.1, np.nan, 0.7], "<f4").tobytes()}
    pmf = np.array([[0.5, 0.25, 0.25], [0.5, 0.0, 0.5]]).tobytes()
    record = DecisionRecord(
        "e", "toy", "", "", "", {"hour": 3.0}, ["a", "b", "c"], None, scores, pmf, [1, 2]
    )
    second = LoggedDecision("e", record.context, ["a", "c"], 1, 0.5, 1.0, slot=1, record=record)
    context, actions = OnlinePolicy(spec_of(), publish_every=1, seed=0).features(second)
    assert actions.ids == ("a", "c")
    assert actions.scores["cf"].tolist() == [np.float32(0.1), np.float32(0.7)]
    assert [space.name for space in actions.namespaces] == ["item", "features", "scores"]
    assert [space.name for space in context.namespaces] == ["context"]


def test_a_mixture_and_a_model_that_is_never_published_are_refused():
    mixture = PolicySpec("m", kind="mixture", sources=[ArtifactSource("cf")], artifact="x")
    for method in (progressive, rejection):
        with pytest.raises(ReplayError):
            method(mixture, [])
        with pytest.raises(InvalidFieldError):
            method(SPECS[0], [], publish_every=0)


UNIFORM = logged(3000, uniform=True, seed=5)


def test_rejection_of_a_uniform_log_is_the_mean_reward_of_the_choices_that_agree():
    """A fixed policy, so the value is known from every action's mean.

    Five standard errors: false alarm below 1e-6.
    """
    spec = spec_of(exploration=Softmax(temperature=1e9), floor=1.0)
    found = rejection(spec, [Rows(UNIFORM[:1000]), Rows(UNIFORM[1000:], skipped=1)])
    assert (found.rows, found.skipped, found.clipped, found.exact) == (3000, 1, 0, True)
    assert abs(found.accepted - 750) < 5 * math.sqrt(3000 * 0.25 * 0.75)
    mean = float(np.mean([row.reward for row in UNIFORM]))
    assert abs(found.mean_accepted_reward - mean) < 5 * math.sqrt(
        mean * (1 - mean) / found.accepted
    )
    assert found.curve[-1].value == found.mean_accepted_reward


def test_rejection_of_a_uniform_log_accepts_as_with_the_bound_k():
    free, bounded = (
        rejection(SPECS[1], [Rows(UNIFORM)]),
        rejection(SPECS[1], [Rows(UNIFORM)], bound=4.0),
    )
    assert (free.accepted, free.mean_accepted_reward) == (
        bounded.accepted,
        bounded.mean_accepted_reward,
    )
    assert free.exact
    assert not bounded.exact
    assert free.mean_accepted_reward > np.mean([row.reward for row in UNIFORM]) + 0.1


def test_rejection_is_decided_by_event_and_seed_and_not_by_order():
    spec = spec_of(exploration=Softmax(temperature=1e9), floor=1.0)
    rows = UNIFORM[:300]
    first = rejection(spec, [Rows(rows)])
    backwards = rejection(spec, [Rows(rows[::-1])])
    assert (first.accepted, first.mean_accepted_reward) == pytest.approx(
        (backwards.accepted, backwards.mean_accepted_reward)
    )
    assert first == rejection(spec, [Rows(rows)])
    assert first.curve != rejection(spec, [Rows(rows)], seed=1).curve


def test_rejection_of_another_log_needs_a_bound_and_counts_what_it_clips():
    rows = [Rows(logged(2000, seed=8))]
    with pytest.raises(ReplayError, match=r"e0.*bound"):
        rejection(SPECS[1], rows)
    with pytest.raises(ReplayError, match="4 and 3 actions"):
        rejection(SPECS[1], [Rows(logged(5, uniform=True) + logged(5, 3, uniform=True))])
    for bound in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InvalidFieldError):
            rejection(SPECS[1], rows, bound=bound)
    uniform = spec_of(exploration=Softmax(temperature=1e9), floor=1.0)
    loose, tight = rejection(uniform, rows, bound=20.0), rejection(uniform, rows, bound=1.0)
    assert (loose.clipped, loose.exact) == (0, False)
    assert abs(loose.accepted - 100) < 5 * math.sqrt(100)  # one in `bound`, whatever the log
    assert tight.clipped == sum(0.25 / row.propensity > 1.0 for row in rows[0].rows)
    ips = np.mean([0.25 / row.propensity * row.reward for row in rows[0].rows])
    assert abs(loose.mean_accepted_reward - ips) < 5 * 0.5 / math.sqrt(loose.accepted)


def test_rejection_learns_from_accepted_rows_with_the_policys_own_propensity(monkeypatch):
    taught = []
    learn = OnlinePolicy.learn
    monkeypatch.setattr(
        OnlinePolicy, "learn", lambda *args: (taught.append((args[1], args[4])), learn(*args))
    )
    spec = spec_of(exploration=Greedy(), floor=0.2)
    found = rejection(spec, [Rows(UNIFORM[:500])])
    assert 0 < len(taught) == found.accepted
    assert np.mean([row.reward for row, _ in taught]) == pytest.approx(found.mean_accepted_reward)
    own = {round(propensity, 6) for _, propensity in taught}
    assert 0.85 in own  # the one best action's; the log's are all 0.25
    assert own <= {0.05, 0.85, 0.45, 0.316667, 0.25}  # others', and with ties


def test_a_curve_has_few_points_however_many_rows():
    curve = Curve()
    for number in range(10_007):
        curve.add(float(number), 1.0 if number % 2 else 0.0)
    points = curve.points()
    assert len(points) <= MAX_POINTS
    assert points[-1].rows == 10_007
    apart = np.diff([0, *(point.rows for point in points[:-1])])
    assert set(apart.tolist()) == {apart[0]}
    for point in points[::20]:
        assert point.value == sum(range(point.rows)) / (point.rows // 2)
    first, second = points[:2]
    between = range(first.rows, second.rows)
    assert second.recent == pytest.approx(sum(between) / sum(number % 2 for number in between))
    assert math.isnan(Curve().value)
