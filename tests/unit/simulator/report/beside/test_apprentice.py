"""What an apprentice would have earned: estimated where the log can tell, and refused where not."""

import math

import msgspec
import numpy as np
import pytest
from support.fakes import FakeLog
from support.logs import archived, decision

from bandits.log.join import JoinRule
from bandits.log.records import Apprentice, RewardRecord, TickRecord
from bandits.types import Float64
from policies.items.catalogue import Catalogue
from policies.spec import Holdout, PolicySpec
from serve_app.cli.report.tables import policy_report_tables
from simulator.logs.archive.pieces import policy_pieces
from simulator.replay.evaluate import OpeQuestion, evaluate
from simulator.replay.parse_policy import parse_policy
from simulator.report.beside.apprentice import apprentice_worth
from simulator.report.closer import look_closely
from simulator.report.gather import read_policy
from simulator.report.make import policy_report_of
from simulator.report.page import policy_page

SPEC = PolicySpec("p", join=JoinRule(window_s=2.0), mode="apprentice")
EMPTY = Catalogue()
WORTH = np.array([0.2, 0.5, 0.8])
"""What a, b and c earn: the apprentice chooses c nine times in ten."""
OWN = np.array([0.05, 0.05, 0.9])


def log_of(count, served, *, spec=SPEC, own=OWN, seed=0) -> FakeLog:
    """Decisions of which ``served`` says by whose choice, and from what, each was served."""
    rng, log = np.random.default_rng(seed), FakeLog(spec)
    log.blobs[EMPTY.digest] = EMPTY.encoded
    for number in range(count):
        by, pmf = served(number)
        chosen = int(rng.choice(3, p=pmf))
        record = decision(
            f"e{number}",
            chosen=(chosen,),
            pmf=np.array(pmf).tobytes(),
            spec=spec.digest,
            catalogue=EMPTY.digest,
            user=f"u{number}",
            holdout=by == "holdout",
            apprentice=Apprentice(by, own.tobytes(), [int(rng.choice(3, p=own))]),
        )
        log.append(record, at=100 + 10 * number)
        if rng.random() < WORTH[chosen]:
            log.append(RewardRecord(f"e{number}", 1.0), at=101 + 10 * number)
    log.append(TickRecord(), at=10 * count + 100_000)
    return log


def reported(root, log, spec=SPEC):
    archived(root, log.entries, spec, blobs=log.blobs)
    return policy_report_of("p", read_policy(str(root), "p"), closer=look_closely(str(root), "p"))


def judged(root, log, spec=SPEC):
    """The part of the report that is of the apprentice, alone."""
    archived(root, log.entries, spec, blobs=log.blobs)
    return apprentice_worth(policy_pieces(str(root), "p", 1))


def drawn(_number):
    return "request", [0.6, 0.2, 0.2]


def certain(_number):
    return "first", [1.0, 0.0, 0.0]


def test_where_the_baseline_explores_the_apprentice_is_estimated_as_replay_does(tmp_path):
    found = reported(tmp_path, log_of(2000, drawn))
    worth = found.apprentice
    truth = float(OWN @ WORTH) - float(np.array([0.6, 0.2, 0.2]) @ WORTH)
    assert worth.verdict == "reliable"
    assert worth.low < truth < worth.high
    assert found.verdict.code == "apprentice_better"
    assert worth.rows == 2000
    assert worth.served == {"request": 2000}
    assert worth.explored == 1.0
    assert worth.agreed == pytest.approx(0.6 * 0.05 + 0.2 * 0.05 + 0.2 * 0.9, abs=0.05)

    question = OpeQuestion([parse_policy("apprentice"), parse_policy("logging")], ["dr"])
    (compared,) = evaluate(question, policy_pieces(str(tmp_path), "p", 1)).comparisons
    assert worth.difference == pytest.approx(compared.result.difference, rel=1e-9)
    assert (worth.low, worth.high) == pytest.approx(compared.result.interval, rel=1e-9)
    page = policy_page(found)
    assert ">apprentice_better<" in page
    assert "Beside the baseline" in page
    assert any(
        getattr(each, "title", "") == "beside the baseline" for each in policy_report_tables(found)
    )


def test_where_the_baseline_never_explores_nothing_is_claimed(tmp_path):
    found = reported(tmp_path, log_of(600, certain))
    worth = found.apprentice
    assert found.verdict.code == "apprentice_unknown"
    assert "holdout" in found.verdict.action
    assert "never takes" in worth.reason
    assert worth.explored == 0.0
    assert math.isnan(worth.value)
    assert math.isnan(worth.difference)
    assert (worth.low, worth.high) == (-math.inf, math.inf)
    assert worth.earned == pytest.approx(0.2, abs=0.06)
    price = found.exploration
    assert (price.price, price.low, price.high) == (0.0, 0.0, 0.0)  # and no rounding of it
    said = msgspec.json.decode(msgspec.json.encode(found))["apprentice"]
    assert said["value"] is None
    assert "is not known" in policy_page(found)


def test_who_chooses_as_the_baseline_does_earns_what_it_earns(tmp_path):
    found = reported(tmp_path, log_of(600, certain, own=np.array([1.0, 0.0, 0.0])))
    assert found.apprentice.agreed == 1.0
    assert found.apprentice.value == pytest.approx(found.apprentice.earned)
    assert found.verdict.code == "apprentice_undecided"


@pytest.mark.slow
def test_a_worse_apprentice_is_told_from_the_holdout_alone(tmp_path):
    """The baseline always serves c; a fifth is served uniformly, and tells what a and b earn."""
    spec = msgspec.structs.replace(SPEC, holdout=Holdout(0.2))
    own = np.array([0.9, 0.05, 0.05])

    def served(number):
        return ("holdout", [1 / 3] * 3) if number % 5 == 0 else ("first", [0.0, 0.0, 1.0])

    found = reported(tmp_path, log_of(2000, served, spec=spec, own=own), spec)
    worth = found.apprentice
    assert found.verdict.code == "apprentice_worse"
    assert worth.low < float(own @ WORTH) - 0.8 < worth.high
    assert worth.earned == pytest.approx(0.8, abs=0.03)
    assert worth.value == pytest.approx(float(own @ WORTH), abs=0.15)
    assert "of 400 held out" in worth.reason


def test_the_first_slots_of_pages_are_judged_as_single_ones_are(tmp_path):
    log = FakeLog(SPEC)
    log.blobs[EMPTY.digest] = EMPTY.encoded
    rng = np.random.default_rng(3)
    for number in range(400):
        record = decision(
            f"e{number}",
            chosen=tuple(int(k) for k in rng.permutation(3)[:2]),
            spec=SPEC.digest,
            catalogue=EMPTY.digest,
        )
        own = Apprentice("request", record.pmf, record.chosen)
        log.append(msgspec.structs.replace(record, apprentice=own), at=100 + number)
        log.append(RewardRecord(f"e{number}", float(rng.random() < 0.5), slot=0), at=100 + number)
    log.append(TickRecord(), at=100_000)
    found = reported(tmp_path, log)
    assert found.apprentice.rows == 400
    assert found.apprentice.difference == pytest.approx(0.0, abs=1e-9)


def pages(count: int, served: Float64, *, spec=SPEC, seed=1) -> FakeLog:
    """Pages of two slots; ``served``: what each was drawn from, but for those held out."""
    rng, log = np.random.default_rng(seed), FakeLog(spec)
    log.blobs[EMPTY.digest] = EMPTY.encoded

    def drawn(pmf: Float64) -> tuple[tuple[int, int], bytes]:
        first = int(rng.choice(3, p=pmf))
        left = np.where(np.arange(3) == first, 0.0, pmf + 1e-12)
        left /= left.sum()
        return (first, int(rng.choice(3, p=left))), np.stack([pmf, left]).tobytes()

    for number in range(count):
        held = spec.holdout is not None and number % 2 == 0
        chosen, pmf = drawn(np.full(3, 1 / 3) if held else served)
        own, own_pmf = drawn(OWN)
        record = decision(
            f"e{number}",
            chosen=chosen,
            pmf=pmf,
            spec=spec.digest,
            catalogue=EMPTY.digest,
            holdout=held,
            user=f"u{number}",
            apprentice=Apprentice("holdout" if held else "request", own_pmf, list(own)),
        )
        log.append(record, at=100 + 10 * number)
        for slot, action in enumerate(chosen):
            if rng.random() < WORTH[action]:
                reward = RewardRecord(f"e{number}", 1.0, f"r{slot}", slot=slot)
                log.append(reward, at=101 + 10 * number)
    log.append(TickRecord(), at=10 * count + 100_000)
    return log


def worth_of_page(pmf: Float64) -> float:
    """What a page of two slots earns on average, of all that may come."""
    first, second = np.indices((3, 3))
    chance = np.where(first == second, 0.0, pmf[first] * pmf[second] / (1.0 - pmf[first]))
    return float((chance * (WORTH[first] + WORTH[second])).sum())


def test_whole_pages_are_judged_where_the_baseline_draws_or_users_are_held_out(tmp_path):
    """Estimates hold the truth; by chance they miss it once in twenty looks: these are seeded."""
    served = np.array([0.4, 0.3, 0.3])
    truth = worth_of_page(OWN)
    found = reported(tmp_path / "drawn", pages(1500, served))
    page = found.apprentice.page
    assert (page.pages, page.verdict) == (1500, "weak")
    assert page.low < truth - worth_of_page(served) < page.high
    assert page.value == pytest.approx(page.earned + page.difference)
    assert "whole page of the baseline" in policy_page(found)

    spec = msgspec.structs.replace(SPEC, holdout=Holdout(0.5))
    always = np.array([1.0, 0.0, 0.0])
    held = judged(tmp_path / "held", pages(1500, always, spec=spec), spec).page
    assert held.verdict == "weak"
    assert held.low < truth - held.earned < held.high
    assert "750 pages held out" in held.reason

    never = judged(tmp_path / "never", pages(300, always)).page
    assert never.verdict == "unreliable"
    assert "never served" in never.reason
    assert math.isnan(never.value)


@pytest.mark.slow
def test_a_policy_that_decides_itself_is_no_apprentice(tmp_path):
    log = FakeLog(SPEC)
    log.blobs[EMPTY.digest] = EMPTY.encoded
    for number in range(50):
        made = decision(f"e{number}", spec=SPEC.digest, catalogue=EMPTY.digest)
        log.append(made, at=100 + number)
        log.append(RewardRecord(f"e{number}", float(number % 2)), at=100 + number)
    log.append(TickRecord(), at=100_000)
    found = reported(tmp_path, log)
    assert found.apprentice is None
    assert found.verdict.code == "no_holdout"
