"""The doctor derives both again: what was served beside an apprentice, and what that would choose."""

import asyncio

import msgspec
import numpy as np
import pytest
from support.fakes import SALT, FakeLog, FakeSource

from banditloop_client.schemas import BaselineProbabilities
from bandits.log.codec import digest
from bandits.log.records import Apprentice, DecisionRecord, TickRecord
from policies.items.catalogue import Catalogue
from policies.ranker import Ranker
from policies.requests import ActionRequest, RankRequest
from policies.spec import Holdout, PolicySpec, RemoteSource
from simulator.doctor.checks.references import ReferencedBlobs
from simulator.doctor.examine import examine

SPEC = PolicySpec(
    "home",
    mode="apprentice",
    sources=[RemoteSource("old", "http://x")],
    baseline="old",
    holdout=Holdout(0.3),
)
ACTIONS = [ActionRequest(name) for name in "abcd"]
REQUESTS = [
    {"history": ["h"]},
    {"history": ["h"], "slots": 2},
    {"actions": ACTIONS},
    {"actions": ACTIONS, "slots": 3},
    {"actions": ACTIONS, "baseline": "c"},
    {"actions": ACTIONS, "baseline": BaselineProbabilities({"a": 0.5, "b": 0.5})},
    {"actions": ACTIONS, "baseline": BaselineProbabilities({"a": 0.5, "b": 0.5}, "b")},
]


@pytest.fixture(scope="module")
def log() -> FakeLog:
    log = FakeLog(SPEC)
    log.blobs[Catalogue().digest] = Catalogue().encoded
    ranker = Ranker(SPEC, [FakeSource("old", {"x": 2.0, "y": 2.0, "z": 3.0})], salt=SALT)
    ranker.serve("s0", log.fold().snapshot())
    for number in range(70):
        request = RankRequest(f"e{number}", **REQUESTS[number % len(REQUESTS)])
        log.append(asyncio.run(ranker.rank(request)), at=1000 + number)
    log.append(TickRecord(), at=100_000)
    return log


def severities(log: FakeLog, change=lambda record: record) -> dict[str, str]:
    entries = [
        msgspec.structs.replace(entry, record=change(entry.record))
        if isinstance(entry.record, DecisionRecord)
        else entry
        for entry in log.entries
    ]
    snapshot = FakeLog(SPEC).fold().snapshot()
    stored = ReferencedBlobs(log.blobs.get, {"s0": snapshot}.get)
    found = examine(entries, salts={digest(SALT): SALT}, stored=stored)
    return {each.check: each.severity for each in found.findings}


def test_decisions_beside_an_apprentice_are_sound(log):
    served = {each.record.apprentice.served for each in log.entries[1:-1]}
    assert served == {"source", "first", "request", "drawn", "holdout"}
    found = severities(log)
    assert found["derivations"] == found["draws"] == "ok"
    assert "failure" not in found.values()


def other_choice(record: DecisionRecord) -> DecisionRecord:
    """Another action was served, as surely."""
    pmf = np.roll(record.pmfs(), 1, axis=1).tobytes()
    return msgspec.structs.replace(
        record, pmf=pmf, chosen=[(k + 1) % len(record.action_ids) for k in record.chosen]
    )


def own_pmf(record: DecisionRecord) -> DecisionRecord:
    """The apprentice would have chosen by other probabilities."""
    own = record.apprentice
    count = len(record.action_ids)
    pmfs = np.frombuffer(own.pmf, "<f8").reshape(-1, count).copy()
    pmfs[0] = np.linspace(1, 2, count) / np.linspace(1, 2, count).sum()
    return msgspec.structs.replace(
        record, apprentice=Apprentice(own.served, pmfs.tobytes(), own.chosen)
    )


def own_choice(record: DecisionRecord) -> DecisionRecord:
    """It would have drawn another."""
    own, count = record.apprentice, len(record.action_ids)
    chosen = [(k + 1) % count for k in own.chosen]
    return msgspec.structs.replace(
        record,
        apprentice=Apprentice(own.served, np.full_like(record.pmfs(), 1 / count).tobytes(), chosen),
    )


@pytest.mark.parametrize(
    ("change", "check", "of"),
    [
        (other_choice, "derivations", {"first", "source"}),
        (own_pmf, "derivations", {"first", "source", "request", "drawn", "holdout"}),
        (own_choice, "draws", {"first"}),
    ],
)
def test_a_record_that_was_changed_is_found(log, change, check, of):
    """Of those whose choice the record itself can tell."""
    changed = severities(
        log, lambda record: change(record) if record.apprentice.served in of else record
    )
    assert changed[check] == "failure"


def test_what_the_caller_says_is_taken_for_what_it_is(log):
    """The caller drew by chances that nobody else knows: no check can tell."""
    changed = severities(
        log,
        lambda record: other_choice(record) if record.apprentice.served == "request" else record,
    )
    assert changed["derivations"] == changed["draws"] == "ok"
