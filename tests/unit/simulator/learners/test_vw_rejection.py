"""Rejection replay of VW on its own logs, against VW's Python interface told the same by hand."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner
from vowpal_wabbit_next import TextFormatParser, Workspace

from bandits.decide import uniform
from bandits.errors import BadRowError, InvalidFieldError, ReplayError
from serve_app.cli.main import app
from simulator.learners.online import salt_of
from simulator.learners.rejection import PURPOSE_REJECTION
from simulator.learners.vw_rejection import vw_rejection
from simulator.logs.formats import open_log
from simulator.replay.parse_policy import VwPolicy

ROWS, ACTIONS = 400, 3
ARGS = [
    "--cb_explore_adf -q ui --epsilon 0.2",
    "--cb_explore_adf -q ui --softmax --lambda 5 --cb_type dr",
    "--cb_explore_adf -q ui --squarecb",
    "--cb_explore_adf -q ui --bag 3 --random_seed 5",
    "--cb_explore_adf -q ui --first 20",
]


def rows(seed: int = 1, *, even: bool = True):
    """Users, choices with their propensities, costs: a user likes one action."""
    rng = np.random.default_rng(seed)
    shares = np.full(ACTIONS, 1 / ACTIONS) if even else np.array([0.5, 0.3, 0.2])
    for _ in range(ROWS):
        user, chosen = int(rng.integers(ACTIONS)), int(rng.choice(ACTIONS, p=shares))
        yield (
            user,
            chosen,
            float(shares[chosen]),
            -float(rng.random() < (0.8 if user == chosen else 0.1)),
        )


def text_of(user: int, chosen: int, probability: float, cost: float) -> list[str]:
    actions = [
        f"{f'0:{cost}:{probability} ' if k == chosen else ''}|i a{k}" for k in range(ACTIONS)
    ]
    return [f"shared |u u{user}", *actions]


def dsjson_of(user: int, chosen: int, probability: float, cost: float) -> str:
    order = [chosen, *(k for k in range(ACTIONS) if k != chosen)]
    return json.dumps(
        {
            "_label_cost": cost,
            "_label_probability": probability,
            "_label_Action": chosen + 1,
            "_labelIndex": chosen,
            "a": [k + 1 for k in order],
            "p": [probability, *[(1 - probability) / (ACTIONS - 1)] * (ACTIONS - 1)],
            "c": {"u": {f"u{user}": 1}, "_multi": [{"i": {f"a{k}": 1}} for k in range(ACTIONS)]},
        }
    )


def written(path, given, log_format: str) -> str:
    if log_format == "vw":
        path.write_text("".join("\n".join(text_of(*each)) + "\n\n" for each in given))
    else:
        path.write_text("".join(dsjson_of(*each) + "\n" for each in given))
    return str(path)


def by_hand(args: str, given, ids, bound: float | None) -> tuple[int, float]:
    """VW predicts each example.

    One that is accepted it learns from with its own probability on the label.
    """
    workspace = Workspace(args.split())
    parser = TextFormatParser(workspace)
    accepted, total = 0, 0.0
    for (user, chosen, probability, cost), event_id in zip(given, ids, strict=True):
        lines = text_of(user, chosen, probability, cost)
        mass = dict(workspace.predict_one([parser.parse_line(line) for line in lines]))[chosen]
        chance = mass if bound is None else mass / (bound * probability)
        if uniform(salt_of(3), "x", event_id, 0, PURPOSE_REJECTION) < chance:
            workspace.learn_one(
                [parser.parse_line(line) for line in text_of(user, chosen, mass, cost)]
            )
            accepted, total = accepted + 1, total - cost
    return accepted, total / accepted


def spans_of(log: str, log_format: str, shards: int = 1):
    return [piece.span for piece in open_log(log, log_format, shards=shards)]


def ids_of(log: str, log_format: str) -> list[str]:
    return [
        row.event_id
        for piece in open_log(log, log_format)
        for batch in piece.batches()
        for row in batch.decisions
    ]


@pytest.mark.parametrize("bound", [None, 5.0])
@pytest.mark.parametrize("args", ARGS)
def test_vw_learns_of_what_it_would_have_chosen_as_it_does_when_told_by_hand(tmp_path, args, bound):
    given = list(rows(even=bound is None))
    log = written(tmp_path / "log.txt", given, "vw")
    found = vw_rejection(
        VwPolicy(name="x", args=args), spans_of(log, "vw"), "text", bound=bound, seed=3
    )
    accepted, mean = by_hand(args, given, ids_of(log, "vw"), bound)
    assert (found.rows, found.accepted) == (ROWS, accepted)
    assert found.mean_accepted_reward == pytest.approx(mean, abs=1e-12)
    assert found.exact == (bound is None)
    assert 20 < accepted < ROWS


@pytest.mark.parametrize("shards", [1, 4])
def test_dsjson_gives_what_text_gives_however_it_is_cut(tmp_path, monkeypatch, shards):
    """The ids differ, so the draws do: here a bound that is too small accepts every row."""
    monkeypatch.setattr("simulator.logs.formats.LEAST_BYTES", 1)
    given, found = list(rows(even=False)), {}
    for log_format, form in (("vw", "text"), ("dsjson", "dsjson")):
        log = written(tmp_path / f"log.{log_format}", given, log_format)
        spans = spans_of(log, log_format, shards)
        found[form] = vw_rejection(VwPolicy(name="x", args=ARGS[0]), spans, form, bound=1e-9)
    assert found["text"].accepted == found["dsjson"].accepted == found["text"].clipped == ROWS
    assert found["text"].curve == found["dsjson"].curve


def test_what_it_earns_is_near_what_it_would_have_earned(tmp_path):
    """It learns who likes what: about 130 accepted rows earn above 0.5, where chance earns 0.33.

    The standard error is 0.04, so a false alarm is below 1 in 10,000; the seed is fixed.
    """
    log = written(tmp_path / "log.txt", [each for seed in range(4) for each in rows(seed)], "vw")
    found = vw_rejection(VwPolicy(args=ARGS[0]), spans_of(log, "vw"), "text")
    assert found.mean_accepted_reward > 0.5


@pytest.mark.parametrize("log_format", ["vw", "dsjson"])
def test_the_command_replays_vw_by_rejection(tmp_path, log_format):
    log = written(tmp_path / "log", rows(), log_format)
    command = [
        "replay",
        "--log",
        log,
        "--format",
        log_format,
        "--method",
        "rejection",
        "--out",
        str(tmp_path / "r.json"),
    ]
    done = CliRunner().invoke(app, [*command, "--policy", f"{{kind: vw, args: '{ARGS[0]}'}}"])
    assert done.exit_code == 0, done.output
    (result,) = json.loads((tmp_path / "r.json").read_text())["results"]
    assert result["method"] == "rejection"
    assert result["learned"]["rows"] == ROWS
    assert 0 < result["learned"]["accepted"] < ROWS


def test_what_cannot_be_replayed_is_refused_or_counted(tmp_path):
    uneven = written(tmp_path / "uneven.txt", rows(even=False), "vw")
    with pytest.raises(ReplayError, match="not uniformly: give a bound"):
        vw_rejection(VwPolicy(args=ARGS[0]), spans_of(uneven, "vw"), "text")
    with pytest.raises(InvalidFieldError, match="a bound on importance weights"):
        vw_rejection(VwPolicy(args=ARGS[0]), spans_of(uneven, "vw"), "text", bound=0.0)
    log = tmp_path / "log.txt"
    written(log, list(rows())[:10], "vw")
    log.write_text(log.read_text() + "0:x:0.5 |i a\n|i b\n\n" + "|i a\n|i b\n\n")
    with pytest.raises(BadRowError, match=r"log\.txt, line 51"):
        vw_rejection(VwPolicy(args=ARGS[0]), spans_of(str(log), "vw"), "text")
    found = vw_rejection(VwPolicy(args=ARGS[0]), spans_of(str(log), "vw"), "text", skip_bad=True)
    assert (found.rows, found.skipped, sum(found.left_out.counts.values())) == (10, 1, 2)
