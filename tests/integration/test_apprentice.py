"""An apprentice on a real server: it learns beside what is served, and each command tells of it."""

import asyncio
import json

import pytest
import redis
from support.loops import KEYS, SALT, head, make, settle, verdicts
from typer.testing import CliRunner

from banditloop_client.console_schemas import DecisionEvent
from bandits.exploration import EpsilonGreedy
from bandits.log.join import JoinRule
from bandits.log.records import DecisionRecord, RewardRecord
from policies.ranker import Ranker
from policies.requests import ActionRequest, RankRequest
from policies.spec import PolicySpec
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.cli.main import app
from serve_app.office.desk import Desk
from serve_app.settings import Settings
from serve_app.store.event_log import RedisLog

pytestmark = [pytest.mark.usefixtures("hurried_learner"), pytest.mark.one_server]

ACTIONS = [ActionRequest(name, {"kind": name}) for name in "abc"]
SPEC = PolicySpec(
    "home",
    mode="apprentice",
    learn="imitation",
    exploration=EpsilonGreedy(0.2),
    join=JoinRule(window_s=0.02),
)


def decided(client: redis.Redis, number: int) -> DecisionRecord:
    """A decision beside the newest model, of which b is served and earns nothing."""
    ranker = Ranker(SPEC, (), salt=SALT)
    name, published = StoredPolicy(client, "home").find(head(client))
    ranker.serve(name, published.snapshot)
    request = RankRequest(f"e{number}", actions=ACTIONS, baseline="b")
    record = asyncio.run(ranker.rank(request))
    log = RedisLog(client, KEYS)
    log.append(record)
    log.append(RewardRecord(record.event_id, float(number % 2), f"r{number}"))
    return record


def run(*words: str) -> dict:
    shown = CliRunner().invoke(app, [*words, "--json"])
    assert shown.exit_code == 0, shown.output
    return json.loads(shown.stdout)


def test_it_comes_to_choose_what_is_served_and_every_command_says_so(client, server_url, tmp_path):
    (tmp_path / "salt").write_bytes(SALT)
    loop = make(client, SPEC)
    settle(loop)
    records = []
    for number in range(24):
        records.append(decided(client, number))
        settle(loop)
    assert all(record.pmfs()[0].tolist() == [0.0, 1.0, 0.0] for record in records)
    assert records[0].own().pmfs()[0].tolist() == pytest.approx([1 / 3] * 3)
    assert records[-1].own().pmfs()[0][1] > 0.8
    assert set(verdicts(client)) == {"identical"}

    options = ("--redis-url", server_url, "--data-dir", str(tmp_path))
    report = run("report", "home", *options)
    assert report["apprentice"]["served"] == {"request": 24}
    assert report["apprentice"]["explored"] == 0.0
    assert report["apprentice"]["earned"] == 0.5
    assert report["apprentice"]["value"] is None
    assert report["verdict"]["code"] == "apprentice_unknown"

    why = run("explain", "e9", *options)
    assert why["served"] == "request"
    assert why["chosen"] == ["b"]
    assert "what the request named was served: b" in why["explanation"]["note"]
    own = records[9].own()
    settings = Settings(redis_url=server_url, data_dir=tmp_path, archive="none")
    event = Desk(settings, "home").do("event", {"event_id": "e9"})
    assert isinstance(event, DecisionEvent)
    assert [each.id for each in event.chosen] == ["b"]
    assert event.apprentice is not None
    assert event.apprentice.served == "request"
    assert event.apprentice.chosen[0].id == own.action_ids[own.chosen[0]]
    by_id = dict(zip(own.action_ids, own.pmfs()[0].tolist(), strict=True))
    assert {each.id: each.own for each in event.candidates} == by_id
    assert why["explanation"]["actions"][0]["id"] == own.action_ids[own.chosen[0]]

    findings = {each["check"]: each for each in run("doctor", *options)["findings"]}
    assert findings["derivations"]["severity"] == findings["draws"]["severity"] == "ok"
