"""Evaluation of pages: a peer's values, identities over all pages, and the command line."""

import json
from dataclasses import replace
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pytest
from support.fakes import FakeLog
from support.logs import archived, decision
from typer.testing import CliRunner

from bandits.errors import BadRowError, ReplayError
from bandits.exploration import EpsilonGreedy, Softmax, with_floor
from bandits.log.join import JoinRule
from bandits.log.records import RewardRecord, TickRecord
from bandits.types import Float64
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec
from serve_app.cli.main import app
from simulator.logs.archive.pieces import archive_pieces
from simulator.logs.formats import open_log
from simulator.logs.left_out import LeftOut
from simulator.logs.rows import LoggedDecision, MemoryPiece, key_of
from simulator.ope.slates import pseudo_inverse
from simulator.ope.slates.batch import slate_batch
from simulator.ope.slates.estimators import SlateEstimator
from simulator.ope.slates.formulas import SLATE_FORMULAS
from simulator.ope.slates.kernels import weigh_slots
from simulator.ope.slates.marginals import slot_marginals
from simulator.ope.slates.pages import BROKEN, WIDER, pages_of
from simulator.ope.slates.pseudo_inverse import draws_of, page_weights, rule_of
from simulator.ope.slates.target_batch import marginals_of, target_slate_batch
from simulator.ope.targets import ColumnTarget, LoggingTarget, RowTarget, UniformTarget
from simulator.replay.evaluate_slates import SlateQuestion, evaluate_slates

PEER = json.loads((Path(__file__).parents[3] / "fixtures" / "obp_slates.json").read_text())
SOFTMAX = Softmax(1.0)


class ByLogits(RowTarget):
    """Fills a page by the softmax of an action's logit, its own for each page."""

    def __init__(self, logits: Float64, name: str = "by logits", explore=SOFTMAX, floor=0.0):
        super().__init__(name)
        self.logits, self.explore, self.floor = logits, explore, floor

    def pmf(self, row):
        logits = self.logits[int(row.event_id[1:])][[int(each) for each in row.action_ids]]
        return with_floor(self.explore.pmf(logits, 1.0), self.floor)


def page(number, shown, rewards, policy: RowTarget, count):
    """The rows of a page that a policy could have filled."""
    rows, left = [], [str(k) for k in range(count)]
    for slot, (action, reward) in enumerate(zip(shown, rewards, strict=True)):
        row = LoggedDecision(
            f"e{number}", {}, list(left), left.index(str(action)), 1.0, float(reward), slot=slot
        )
        pmf = policy.pmf(row)
        rows.append(
            LoggedDecision(
                row.event_id,
                {},
                row.action_ids,
                row.chosen,
                float(pmf[row.chosen]),
                row.reward,
                pmf=pmf,
                slot=slot,
                time_ms=1 + number,
            )
        )
        left.remove(str(action))
    return rows


def peer_rows():
    logging = ByLogits(np.array(PEER["logging_logits"]))
    return [
        row
        for number, (shown, rewards) in enumerate(
            zip(PEER["actions"], PEER["rewards"], strict=True)
        )
        for row in page(number, shown, rewards, logging, 5)
    ]


def ask(rows, *targets, **fields):
    return evaluate_slates(SlateQuestion(targets, **fields), [MemoryPiece(rows)])


def all_pages(policy: RowTarget, count, slots):
    """Every page there is, and how likely the policy shows it."""
    rows, chances = [], []
    for number, shown in enumerate(permutations(range(count), slots)):
        mine = page(number, shown, [0.0] * slots, policy, count)
        rows += mine
        chances.append(np.prod([row.propensity for row in mine]))
    return rows, np.array(chances)


def all_together(rows, slots):
    """Pages of memory in one, as an archive's batches have them."""
    end = LoggedDecision("end", {}, ["0"], 0, 1.0, 0.0)
    pages, _ = pages_of(MemoryPiece([*rows, end]), slots, LeftOut())
    return pages


def exact_marginals(policy: RowTarget, count, slots):
    rows, chances = all_pages(policy, count, slots)
    out = np.zeros((slots, count))
    for at, row in enumerate(rows):
        out[row.slot, int(row.action_ids[row.chosen])] += chances[at // slots]
    return out


def same_for_all(logits, **options):
    return ByLogits(np.tile(logits, (200, 1)), **options)


@pytest.mark.parametrize("name", ["sips", "snsips", "rips", "snrips"])
def test_a_peer_says_the_same_from_pages(name):
    target = ByLogits(np.array(PEER["target_logits"]))
    estimate = ask(peer_rows(), target, horizon=3).results[0].estimates[name]
    assert estimate.value == pytest.approx(PEER["values"][name], rel=1e-9)


@pytest.mark.parametrize("name", ["iips", "sniips"])
def test_a_peer_says_the_same_from_weights_of_slots(name):
    weights = np.array(PEER["target_by_position"]) / np.array(PEER["logging_by_position"])
    ones, lengths = np.ones(weights.shape), np.full(len(weights), 3)
    batch = slate_batch(
        np.arange(len(weights), dtype=np.uint64),
        lengths,
        np.array(PEER["rewards"]),
        ones,
        ones,
        0.0 * ones,
        slot_weights=weights,
    )
    estimator = SlateEstimator(name, horizon=3)
    estimator.update(batch)
    assert estimator.estimate().value == pytest.approx(PEER["values"][name], rel=1e-9)


def weighed(pages, marginals):
    """Weights of slots where it is known what the target would do: no pages have to be filled."""
    actions = pages.batch.actions
    return weigh_slots(
        pages.starts, actions.offsets, pages.places, actions.chosen, actions.pmf, marginals
    )


LOGGING = {
    "softmax": same_for_all(np.array([0.3, -0.5, 1.0, 0.1])),
    "softmax with a floor": same_for_all(np.array([0.3, -0.5, 1.0, 0.1]), floor=0.3),
    "epsilon-greedy": same_for_all(np.array([4.0, 2.0, 3.0, 1.0]), explore=EpsilonGreedy(0.4)),
    "uniform": same_for_all(np.zeros(4)),
}
TARGET = same_for_all(np.array([-1.0, 0.7, 0.2, 0.0]), name="target")


@pytest.mark.parametrize("logging", LOGGING.values(), ids=list(LOGGING))
def test_weights_of_slots_have_the_means_they_should(logging):
    """Over all pages, the weight of each action in each slot is the target's probability of it."""
    rows, chances = all_pages(logging, 4, 3)
    wanted = exact_marginals(TARGET, 4, 3)
    marginals = np.tile(wanted.ravel(), len(chances))
    weights, never, second = weighed(all_together(rows, 3), marginals)
    found, by_row = np.zeros((3, 4)), np.repeat(chances, 3)
    for row, chance, weight in zip(rows, by_row, weights, strict=True):
        found[row.slot, int(row.action_ids[row.chosen])] += chance * weight
    assert found == pytest.approx(wanted, abs=1e-12)
    assert by_row @ second == pytest.approx(by_row @ weights**2)
    assert (never == 0.0).all()


def test_mass_on_what_a_slot_never_shows_is_missing():
    """A greedy log shows one page: the target's other mass has no weight."""
    logging = same_for_all(np.array([4.0, 2.0, 3.0, 1.0]), explore=EpsilonGreedy(0.0))
    rows = page(0, (0, 2), (1.0, 1.0), logging, 4)
    wanted = exact_marginals(TARGET, 4, 2)
    pages = all_together(rows, 2)
    weights, never, _ = weighed(pages, wanted.ravel())
    assert weights == pytest.approx([wanted[0, 0], wanted[1, 2]])
    assert weights + never == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("first", [0, 1])
def test_how_many_pages_count_does_not_wait_for_the_rare_page(first):
    """A sure page, of a uniform log: 1 in 24 counts, whether or not one has come near it."""
    target = same_for_all(np.array([-1.0, 0.7, 0.2, 0.0]), explore=EpsilonGreedy(0.0))
    rows, _ = all_pages(LOGGING["uniform"], 4, 3)
    begins = {row.event_id for row in rows if row.slot == 0 and row.chosen == first}
    pages = all_together([row for row in rows if row.event_id in begins], 3)
    batch = target_slate_batch(target, pages, {"page"})
    for name, expected in {"sips": [6 / 24], "rips": [6 / 4, 6 / 12, 6 / 24]}.items():
        estimator = SlateEstimator(name, horizon=3)
        estimator.update(batch)
        promised = [each.expected_ess for each in estimator._slots.rows]
        assert promised == pytest.approx(expected)
        assert estimator.estimate().verdict == "unreliable"


@pytest.mark.parametrize("name", ["softmax", "softmax with a floor", "uniform"])
def test_weights_of_the_pseudo_inverse_have_the_means_they_should(name):
    rows, chances = all_pages(LOGGING[name], 4, 3)
    wanted, found, squares = exact_marginals(TARGET, 4, 3), np.zeros((3, 4)), 0.0
    pages = all_together(rows, 3)
    weights, second = page_weights(pages, np.tile(wanted.ravel(), len(pages)))
    for at, row in enumerate(rows):
        found[row.slot, int(row.action_ids[row.chosen])] += chances[at // 3] * weights[at // 3]
    squares = float(chances @ weights**2)
    assert found == pytest.approx(wanted, abs=1e-9)
    assert squares == pytest.approx(second[0], rel=1e-9)
    assert weights @ chances == pytest.approx(1.0)


def test_what_drawn_pages_are_off_by_is_in_the_interval(monkeypatch):
    """Weights of large pages are found by drawn ones, and no number of logged pages mends that."""
    rows, chances = all_pages(LOGGING["softmax"], 4, 3)
    pages, wanted = all_together(rows, 3), exact_marginals(TARGET, 4, 3)
    worth = np.arange(12.0).reshape(3, 4)
    shown = np.array([int(row.action_ids[row.chosen]) for row in rows]).reshape(-1, 3)
    earned, truth = worth[np.arange(3), shown].sum(axis=1), float((wanted * worth).sum())

    def errors(draws, seeds):
        for seed in seeds:
            drawn = np.random.default_rng(seed).random((draws, 3))
            monkeypatch.setattr(pseudo_inverse, "_draws", lambda _, drawn=drawn: drawn)
            pseudo_inverse._inverse.cache_clear()
            weights, _ = page_weights(pages, np.tile(wanted.ravel(), len(pages)))
            yield float(chances @ (weights * earned)) - truth

    exact, _ = page_weights(pages, np.tile(wanted.ravel(), len(pages)))
    assert draws_of(pages) == np.inf
    spread = np.sqrt(chances @ (exact * earned) ** 2 - truth**2)
    with monkeypatch.context() as patch:
        patch.setattr(pseudo_inverse, "LISTED", 0)
        patch.setattr(pseudo_inverse, "DRAWN", 1000)
        assert draws_of(pages) == 1000
        off = np.sqrt(np.mean(np.square(list(errors(1000, range(40))))))
    pseudo_inverse._inverse.cache_clear()
    assert off == pytest.approx(spread / np.sqrt(1000), rel=0.25)

    # An interval takes it for a sample beside the log's.
    found = []
    for draws in (np.inf, 24):
        ones, weights = np.ones((24, 3)), {"page_weights": exact, "page_draws": draws}
        batch = slate_batch(
            *(np.arange(24, dtype=np.uint64), np.full(24, 3), ones * earned[:, None], ones, ones),
            0.0 * ones,
            **weights,
        )
        estimator = SlateEstimator("pi", horizon=3)
        estimator.update(batch)
        found.append(estimator.estimate().stderr)
    assert found[1] / found[0] == pytest.approx(np.sqrt(2.0))


def test_a_rule_is_found_where_pages_are_filled_by_one():
    for name, logging in LOGGING.items():
        pmfs = np.zeros((3, 4))
        for slot, row in enumerate(page(0, (1, 0, 3), (0, 0, 0), logging, 4)):
            pmfs[slot, [int(each) for each in row.action_ids]] = row.pmf
        rule = rule_of(pmfs, np.array([1, 0, 3]))
        if name == "epsilon-greedy":
            assert rule is None
        else:
            assert rule is not None
            assert rule[1] == pytest.approx(0.3 if "floor" in name else 0.0, abs=1e-9)


def test_marginals_are_right_on_average_and_depend_on_the_key_alone():
    """Within 4.5 standard errors of 500 pages: a false alarm in 150,000, of each of 12."""
    (row, *_) = page(0, (0, 1, 2), (0, 0, 0), LOGGING["uniform"], 4)
    keys = [key_of(f"k{n}") for n in range(500)]
    drawn = np.array([slot_marginals(TARGET, row, 3, key) for key in keys])
    wanted, spread = exact_marginals(TARGET, 4, 3), drawn.std(axis=0) / np.sqrt(len(keys))
    assert (np.abs(drawn.mean(axis=0) - wanted) <= 4.5 * spread + 1e-12).all()
    assert drawn.sum(axis=2) == pytest.approx(1.0)
    assert (slot_marginals(TARGET, row, 3, keys[0]) == drawn[0]).all()
    assert (slot_marginals(UniformTarget(), row, 3, 1) == 0.25).all()


def random_rows(count, seed=0, logging=LOGGING["softmax with a floor"]):
    rng, rows = np.random.default_rng(seed), []
    for number in range(count):
        left, shown = list(range(4)), []
        for _ in range(int(rng.integers(1, 4))):
            row = LoggedDecision(f"e{number % 200}", {}, [str(k) for k in left], 0, 1.0, 0.0)
            shown.append(left.pop(int(rng.choice(len(left), p=logging.pmf(row)))))
        rewards = rng.random(len(shown)) < 0.2 + 0.15 * np.array(shown)
        made = page(number % 200, shown, rewards, logging, 4)
        rows += (
            made
            if number < 200
            else [
                LoggedDecision(
                    f"f{number}",
                    {},
                    each.action_ids,
                    each.chosen,
                    each.propensity,
                    each.reward,
                    pmf=each.pmf,
                    slot=each.slot,
                )
                for each in made
            ]
        )
    return rows


def test_of_the_logging_policy_they_are_the_mean_of_pages():
    rows = random_rows(150)
    mean = sum(row.reward for row in rows) / 150
    result = ask(rows, LoggingTarget(), estimators=list(SLATE_FORMULAS), horizon=3).results[0]
    for estimate in result.estimates.values():
        if estimate is not result.estimates["pi"]:
            assert estimate.value == pytest.approx(mean, rel=1e-12)
    assert [each.n for each in result.slots["sniips"]] == [
        sum(row.slot == slot for row in rows) for slot in range(3)
    ]
    assert sum(each.value for each in result.slots["sniips"]) == pytest.approx(mean)

    # Few pages go on to the last slot; their weights are all 1, and nothing is wrong with them.
    assert result.slots["sniips"][2].n < 60
    assert [each.ess for each in result.slots["sniips"]] == pytest.approx([150.0] * 3)


def test_what_an_action_earns_by_slot_is_how_often_it_is_looked_at():
    """Within 4 standard errors, of 1,500 pages: a false alarm in 16,000, of each of 2."""
    rng, looked, rows = np.random.default_rng(5), [1.0, 0.5, 0.2], []
    for number in range(1500):
        left, shown = list(range(4)), []
        for _ in range(3):
            row = LoggedDecision(f"e{number % 200}", {}, [str(k) for k in left], 0, 1.0, 0.0)
            shown.append(left.pop(int(rng.choice(len(left), p=LOGGING["softmax"].pmf(row)))))
        likes = np.array([0.9, 0.3, 0.5, 0.7])[shown] * looked
        made = page(number % 200, shown, rng.random(3) < likes, LOGGING["softmax"], 4)
        rows += [replace(each, event_id=f"e{number}") for each in made]
    report = ask(rows, LoggingTarget(), estimators=["sips"], horizon=3, alpha=6e-5)
    assert [each.value for each in report.examination][:1] == [pytest.approx(1.0)]
    for truth, each in zip(looked, report.examination, strict=True):
        low, high = each.interval
        assert low - 1e-9 <= truth <= high + 1e-9
        assert each.verdict == "reliable"
    assert report.examination[1].interval[1] - report.examination[1].interval[0] < 0.4


def test_a_page_may_earn_what_the_best_of_its_slots_does():
    rows = random_rows(150)
    pages = [[row.reward for row in rows if row.event_id == f"e{n}"] for n in range(150)]
    report = ask(rows, LoggingTarget(), TARGET, horizon=3, page_reward="largest")
    assert list(report.results[0].estimates) == ["sips", "snsips"]
    mean = np.mean([max(each) for each in pages])
    assert report.results[0].estimates["sips"].value == pytest.approx(mean)
    assert report.log.mean_reward == pytest.approx(mean)
    assert report.comparisons[0].estimator == "snsips"
    with pytest.raises(ReplayError, match="largest reward needs sips or snsips"):
        ask(rows, TARGET, estimators=["iips"], page_reward="largest")
    with pytest.raises(ReplayError, match="is sum or largest, not 'any'"):
        ask(rows, TARGET, page_reward="any")


def test_shards_add_up():
    rows = random_rows(120)
    starts = [at for at, row in enumerate(rows) if row.slot == 0]
    cuts = [0, starts[30], starts[77], len(rows)]
    pieces = [MemoryPiece(rows[a:b]) for a, b in pairwise(cuts)]
    question = SlateQuestion([LoggingTarget(), TARGET], list(SLATE_FORMULAS), horizon=3)
    once, parts = evaluate_slates(question, [MemoryPiece(rows)]), evaluate_slates(question, pieces)
    for mine, theirs in zip(once.results, parts.results, strict=True):
        for name, estimate in mine.estimates.items():
            assert theirs.estimates[name].value == pytest.approx(estimate.value, rel=1e-9)
            assert theirs.estimates[name].stderr == pytest.approx(estimate.stderr, rel=1e-9)
    assert parts.comparisons[0].estimator == "sniips"


def test_only_the_first_slots_count_and_broken_pages_are_left_out():
    rows = [*random_rows(50), *page(199, (2, 1, 0), (1, 1, 1), LOGGING["uniform"], 4)[1:]]
    report = ask(rows, LoggingTarget(), horizon=1)
    assert report.log.left_out == {BROKEN: 2}
    assert report.log.decisions == 50
    assert "longer than 1 slots" in report.results[0].notes[0]
    mean = sum(row.reward for row in rows[:-2] if row.slot == 0) / 50
    assert report.results[0].estimates["sniips"].value == pytest.approx(mean)


def test_what_cannot_be_had_is_refused_by_name_and_left_out_otherwise():
    bare = [
        LoggedDecision(r.event_id, {}, r.action_ids, r.chosen, r.propensity, r.reward, slot=r.slot)
        for r in random_rows(40)
    ]
    with pytest.raises(ReplayError, match="need the PMFs of every slot"):
        ask(bare, UniformTarget(), estimators=["iips"])
    assert set(ask(bare, UniformTarget()).results[0].estimates) == {
        "sips",
        "snsips",
        "rips",
        "snrips",
    }
    greedy = random_rows(30, logging=LOGGING["epsilon-greedy"])
    with pytest.raises(ReplayError, match="do not follow from that of the first"):
        ask(greedy, UniformTarget(), estimators=["pi"])
    with pytest.raises(ReplayError, match="one probability per row"):
        SlateQuestion([ColumnTarget("p")])
    with pytest.raises(ReplayError, match="no estimator 'dr' of pages"):
        SlateQuestion([UniformTarget()], ["dr"])
    with pytest.raises(ReplayError, match="normal, bootstrap, anytime"):
        SlateQuestion([UniformTarget()], interval="bernstein")


def test_pages_that_widen_are_left_out_and_counted():
    """As where a rule lets an item stand only further down."""
    wide = [LoggedDecision("w", {}, ["0"], 0, 1.0, 1.0, pmf=np.ones(1))]
    wide.append(LoggedDecision("w", {}, ["1"], 0, 1.0, 1.0, pmf=np.ones(1), slot=1))
    report = ask([*wide, *random_rows(30)], LoggingTarget(), horizon=3)
    assert report.log.left_out == {WIDER: 2}
    assert report.log.decisions == 30
    with pytest.raises(ReplayError, match=r"no pages to evaluate: .*the first has not: 2"):
        ask(wide, UniformTarget())


def test_what_a_rule_keeps_out_of_a_slot_is_missing():
    """The second slot is without the action 1, whatever stands in the first."""
    rows = page(0, (0, 2), (1.0, 1.0), LOGGING["uniform"], 4)
    rows[1] = replace(rows[1], action_ids=["2", "3"], chosen=0, pmf=np.array([0.5, 0.5]))
    weights, never, _ = weighed(all_together(rows, 2), np.full(8, 0.25))
    assert weights == pytest.approx([1.0, 0.25 / (0.5 * 0.75)])
    assert never == pytest.approx([0.0, 0.25])


def test_slots_of_an_archive_are_pages(tmp_path):
    spec = PolicySpec("p", join=JoinRule(window_s=2.0, default_reward=0.0))
    log = FakeLog(spec)
    log.blobs[Catalogue().digest] = Catalogue().encoded
    for number in range(40):
        log.append(
            decision(
                f"e{number}",
                ids=("a", "b", "c", "d"),
                chosen=[number % 4, (number + 1) % 4],
                spec=spec.digest,
                catalogue=Catalogue().digest,
            ),
            at=10 + number,
        )
        log.append(RewardRecord(f"e{number}", 1.0, slot=number % 2), at=11 + number)
    log.append(TickRecord(), at=10_000)
    archived(tmp_path, log.entries, spec, 3, blobs=log.blobs)

    question = SlateQuestion([LoggingTarget(), UniformTarget()], list(SLATE_FORMULAS))
    report = evaluate_slates(question, archive_pieces(str(tmp_path), "p", 2))
    assert report.log.decisions == 40
    for result in report.results:
        values = [each.value for each in result.estimates.values()]
        assert values == pytest.approx(np.ones(len(values)))
    assert [each.value for each in report.results[1].slots["sniips"]] == pytest.approx([0.5, 0.5])


def test_the_command_reads_slots_of_a_table(tmp_path):
    lines = ["event,slot,action,actions,propensity,reward"]
    for number in range(60):
        first, second = ("a", "b") if number % 2 else ("b", "c")
        lines.append(f"e{number},0,{first},a|b|c,0.5,1")
        left = "|".join(each for each in "abc" if each != first)
        lines.append(f"e{number},1,{second},{left},0.5,{number % 2}")
    (tmp_path / "log.csv").write_text("\n".join(lines))
    columns = "{event_id: event, slot: slot, action: action, actions: actions}"
    command = [
        "replay",
        "--log",
        str(tmp_path / "log.csv"),
        "--format",
        "csv",
        "--method",
        "slates",
    ]
    command += ["--policy", "uniform", "--columns", columns, "--shards", "3", "--json"]
    done = CliRunner().invoke(app, [*command, "--html", str(tmp_path / "page.html")])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    logging, uniform = report["results"]
    assert logging["estimates"]["snrips"]["value"] == pytest.approx(1.5)
    assert uniform["slots"]["snrips"][0]["value"] == pytest.approx(1.0)
    assert "What each slot earns" in (tmp_path / "page.html").read_text()

    wrong = CliRunner().invoke(app, [*command[:-1], "--columns", "{slot: slot, action: action}"])
    assert "slots need event_id" in str(wrong.exception)
    (tmp_path / "log.csv").write_text("\n".join([*lines, "e60,1.5,a,a|b,0.5,1"]))
    wrong = CliRunner().invoke(app, command)
    assert "is no slot, a whole number" in str(wrong.exception)


def test_targets_say_what_they_would_do_with_what_is_left():
    rows = random_rows(20)
    pages = all_together(rows, 3)
    flat = marginals_of(TARGET, pages)
    assert flat.size == int((pages.lengths * 4).sum())
    batch = target_slate_batch(TARGET, pages, {"slot"})
    assert batch.slot_weights.shape == (20, 3)
    assert batch.page_weights is None


ASKED = ("--policy", "uniform", "--json", "--estimator", "iips")


def ccb(*slots, **others):
    """A line of VW with several slots: of each its actions, their probabilities, and its cost."""
    outcomes = [
        {"_a": actions, "_p": chances} | ({} if cost is None else {"_label_cost": cost})
        for actions, chances, cost in slots
    ]
    context = {"u": {"x": 1}, "_multi": [{"a": 1}, {"b": 1}, {"c": 1}], "_slots": [{}, {"s": 1}]}
    return json.dumps({"EventId": "e", "c": context, "_outcomes": outcomes} | others)


def test_pages_of_vowpal_wabbit_are_read(tmp_path):
    log = tmp_path / "log.json"
    good = [([2, 0, 1], [0.5, 0.25, 0.25], -1), ([1, 0], [0.75, 0.25], 0)]
    log.write_text("\n".join(ccb(*good, EventId=f"e{n}") for n in range(40)))
    (batch,) = [batch for piece in open_log(str(log), "dsjson") for batch in piece.batches()]
    first, second = batch.decisions[:2]
    assert (first.action_ids, first.chosen, first.slot) == (["1", "2", "3"], 2, 0)
    assert first.pmf == pytest.approx([0.25, 0.25, 0.5])
    assert (second.action_ids, second.chosen, second.slot) == (["1", "2"], 1, 1)
    assert second.pmf == pytest.approx([0.25, 0.75])
    assert second.features == [{"a": 1.0}, {"b": 1.0}]
    assert (second.propensity, second.reward, second.context) == (0.75, 0.0, {"u.x": 1.0})

    done = CliRunner().invoke(
        app,
        [*f"replay --log {log} --format dsjson --method slates".split(), *ASKED],
    )
    assert done.exit_code == 0, done.output
    uniform = json.loads(done.stdout)["results"][1]
    assert uniform["estimates"]["iips"]["value"] == pytest.approx(1 / 3 / 0.5)


@pytest.mark.parametrize(
    "line",
    [
        ccb(([3], [1.0], 0)),
        ccb(([0], [1.0], 0), ([0], [1.0], 0)),
        ccb(([], [], 0)),
        ccb(([0], [0.0], 0)),
        ccb(([0], ["x"], 0)),
        ccb(([0], [1.0], 0), _label_cost=0, _label_probability=1, _labelIndex=0),
        ccb(([0], [1.0], 0), pdrop=1),
        ccb(([0], [1.0], 1e13)),
        ccb(([0], [1.0], 0), c={"_multi": 3}),
    ],
)
def test_a_page_that_is_none_is_a_bad_row(tmp_path, line):
    (tmp_path / "log.json").write_text(line)
    pieces = open_log(str(tmp_path / "log.json"), "dsjson")
    with pytest.raises(BadRowError, match="line 1: "):
        list(pieces[0].batches())
    (piece,) = open_log(str(tmp_path / "log.json"), "dsjson", skip_bad=True)
    assert list(piece.batches()) == []
    assert piece.skipped == 1


def test_a_page_without_a_label_is_no_decision(tmp_path):
    lines = [ccb(([0], [1.0], None)), ccb(([0], [1.0], 0), _skipLearn=True)]
    (tmp_path / "log.json").write_text("\n".join(lines))
    (piece,) = open_log(str(tmp_path / "log.json"), "dsjson")
    assert list(piece.batches()) == []
    assert dict(piece.left_out.counts) == {"lines without a label": 1, "lines with _skipLearn": 1}
