"""Events through Personalizer's protocol teach what Vowpal Wabbit's own driver learns of their dsjson."""

import json
import os
import re
from collections import defaultdict

import httpx
import numpy as np
import pytest
from support.fakes import SALT, FakeService, fresh_ranker
from vowpal_wabbit_next import run_cli_driver

from bandits.errors import LogUnavailableError
from bandits.exploration import EpsilonGreedy
from bandits.log.encoded_decisions import whole_record
from bandits.log.join import Join
from bandits.log.join_rule import JoinRule
from bandits.log.records import DecisionRecord, TickRecord
from bandits.vw.config import VwConfig
from bandits.vw.learner import load_vw
from policies.blend import make_learner
from policies.fold.teaching import taught_interactions
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec
from policies.spec.checks import admit
from serve_app.api.asgi import Api
from serve_app.personalizer.app import PersonalizerApi
from serve_app.replica.metrics import Metrics

EVENTS = 20_000 if os.environ.get("BANDITLOOP_EVERY_EVENT") else 1_000
OURS = "--cb_explore_adf --power_t 0 -l 0.001 --cb_type mtr -q ::"
THEIRS = f"{OURS} --epsilon 0.2"
WINDOW_MS = 20_000
SPEC = PolicySpec(
    "home",
    learner=VwConfig(OURS),
    exploration=EpsilonGreedy(0.2),
    floor=0.0,
    join=JoinRule(window_s=WINDOW_MS / 1000),
)


class Timed(FakeService):
    """The log says when: one event each second."""

    now = 1000

    async def rank(self, request, **_) -> tuple[DecisionRecord, bool]:
        record = await self.ranker.rank(request, self.known)
        self.records.append(record, at=self.now)
        return record, True

    async def log(self, records) -> None:
        for record in records:
            self.records.append(record, at=self.now)


def body(rng: np.random.Generator, number: int) -> dict:
    """A request with namespaces, features outside of any, numbers, arrays and booleans."""
    names = rng.permutation(["news", "match", "film", "song", "game"])[: rng.integers(2, 6)]
    user = {"plan": str(rng.choice(["free", "paid"])), "age": float(rng.integers(18, 80)) / 80}
    return {
        "eventId": f"e{number}",
        "contextFeatures": [{"user": user}, {"hour": float(rng.integers(24)) / 24, "new": True}],
        "actions": [
            {
                "id": str(name),
                "features": [
                    {"topic": {"kind": str(name)[0]}, "taste": [0.5, float(len(name)) / 5]},
                    {"live": name == "match"},
                ],
            }
            for name in names
        ],
    }


def nested(features: dict) -> dict:
    """Features of a record as dsjson has them: namespaces are objects, what is in none is at the top."""
    spaces: dict = defaultdict(dict)
    for name, value in features.items():
        space, _, rest = name.rpartition(".")
        spaces[space][rest] = value
    return {**{space: each for space, each in spaces.items() if space}, **spaces.get("", {})}


def dsjson(record: DecisionRecord, reward: float) -> str:
    """The line that Personalizer would have logged of a decision."""
    (chosen,), pmf = record.chosen, record.pmfs()[0].tolist()
    order = [chosen, *(at for at in range(len(pmf)) if at != chosen)]
    bare = {name: value for name, value in record.context.items() if "." not in name}
    spaced = {name: value for name, value in record.context.items() if "." in name}
    multi = [
        {"i": {"id": name}, "j": [nested(features)]}
        for name, features in zip(record.action_ids, record.features, strict=True)
    ]
    line = {
        "_label_cost": -reward,
        "_label_probability": pmf[chosen],
        "_label_Action": chosen + 1,
        "_labelIndex": chosen,
        "Version": "1",
        "EventId": record.event_id,
        "a": [at + 1 for at in order],
        "c": {"FromUrl": [bare], **nested(spaced), "_multi": multi},
        "p": [pmf[at] for at in order],
    }
    return json.dumps(line)


async def traffic(service: Timed) -> None:
    """Rank and reward over the protocol, with a newer snapshot at times."""
    api = Api({"home": service}, Metrics("test"), _nothing)
    adapter = PersonalizerApi(api, api.backend, None)
    rng = np.random.default_rng(7)
    worth = {"news": 0.2, "match": 0.8, "film": 0.5, "song": 0.4, "game": 0.1}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(adapter), base_url="http://test"
    ) as http:
        for number in range(EVENTS):
            service.now += 1000
            said = (await http.post("/personalizer/v1.0/rank", json=body(rng, number))).json()
            if rng.random() < 0.7:
                value = float(rng.random() < worth[said["rewardActionId"]])
                path = f"/personalizer/v1.0/events/{said['eventId']}/reward"
                assert (await http.post(path, json={"value": value})).status_code == 204
            if number in {EVENTS // 4, EVENTS // 2}:
                snapshot = service.records.fold().snapshot()
                service.ranker.serve(f"s{number}", snapshot)


async def _nothing() -> bytes:
    raise LogUnavailableError("no metrics")


def driven(lines: list[str], folder) -> tuple[float, list[dict[int, float]]]:
    """The average loss of VW's driver on dsjson, and its PMF of each line before it learned it."""
    data, predicted = folder / "log.dsjson", folder / "predicted"
    data.write_text("\n".join(lines) + "\n")
    words = [*THEIRS.split(), "--dsjson", "-d", str(data), "-p", str(predicted)]
    said = run_cli_driver(words, onethread=True)[0]
    pmfs = [
        {int(k): float(p) for k, _, p in (each.partition(":") for each in line.split(","))}
        for line in predicted.read_text().split("\n")
        if line
    ]
    return float(re.search(r"average loss = (\S+)", said)[1]), pmfs


class Learned:
    """What our learner makes of the log, in the order of its lessons.

    Of each the line of dsjson, the scores and the PMF before it was learned, and what it costs.
    """

    def __init__(self, entries) -> None:
        self.learner = make_learner(SPEC, salt=SALT)
        self.lines: list[str] = []
        self.scores, self.pmfs = [], []
        self.costs: list[tuple[int, float]] = []
        join = Join(lambda _: SPEC.rule)
        for entry in entries:
            for joined in join.apply(entry):
                self._take(joined)

    def _take(self, joined) -> None:
        (taught,) = taught_interactions(joined, SPEC, Catalogue())
        scorer = load_vw(self.learner.snapshot("1-0"))
        self.scores.append(np.sort(scorer.scores(taught.context, taught.actions)))
        self.pmfs.append(SPEC.exploration.pmf(scorer.scores(taught.context, taught.actions), 0))
        self.costs.append((taught.chosen, -taught.reward / taught.propensity))
        self.learner.learn([taught])
        self.lines.append(dsjson(whole_record(joined.record), taught.reward))

    def loss(self, pmfs) -> float:
        """The mean cost by inverse propensities of these PMFs, as VW counts it."""
        pairs = zip(pmfs, self.costs, strict=True)
        return sum(pmf[chosen] * cost for pmf, (chosen, cost) in pairs) / len(self.costs)


async def test_the_default_policy_learns_what_vws_driver_learns_of_the_logs_dsjson(tmp_path):
    """Predictions within 1e-6 at every event, and the average loss within 1e-5.

    Where the best two actions are alike within what float32 can tell, either may be called the
    best: that is so of fewer than one event in a hundred.
    """
    assert admit(SPEC) is SPEC
    service = Timed(fresh_ranker(SPEC))
    service.records.configure(SPEC, at=1)
    service.records.blobs[Catalogue().digest] = Catalogue().encoded
    await traffic(service)
    service.records.append(TickRecord(), at=service.now + 2 * WINDOW_MS)

    ours = Learned(service.records.entries)
    assert len(ours.lines) == EVENTS
    assert service.records.fold().learner.checkpoint() == ours.learner.checkpoint()

    average, theirs = driven(ours.lines, tmp_path)
    assert len(theirs) == EVENTS
    pairs = zip(ours.pmfs, theirs, strict=True)
    apart = np.array([max(abs(pmf[at] - p) for at, p in said.items()) for pmf, said in pairs])
    gaps = np.array([scores[-1] - scores[-2] for scores in ours.scores])
    assert apart[gaps > 1e-6].max() <= 1e-6
    assert np.count_nonzero(apart > 1e-6) < EVENTS / 100
    assert average == pytest.approx(ours.loss(theirs), abs=1e-5)
    assert average == pytest.approx(ours.loss(ours.pmfs), abs=1e-5)
    assert any(max(pmf) > 0.8 for pmf in ours.pmfs)
