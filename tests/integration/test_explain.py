"""Why a decision of the log is as it is, while its model is stored and long after."""

import asyncio
import json
import time

import msgspec
import pytest
import redis
from support.loops import KEYS, SALT, WINDOW_S, head, make, settle, url_of
from support.loops import SPECS as OF_LOOPS
from typer.testing import CliRunner

from bandits.errors import UnknownEventError
from bandits.exploration import LinTs
from bandits.log.codec import digest, encode
from bandits.log.records import CheckpointRecord, DecisionRecord, RewardRecord, TickRecord
from bandits.types import Snapshot
from policies.ranker import Ranker
from policies.requests import ActionRequest, RankRequest
from policies.spec import PolicySpec
from serve_app.admin.replayed.explaining import EventExplainer
from serve_app.admin.replayed.verification import LogAddress
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.cli.main import app
from serve_app.store.event_log import FIELD, RedisLog
from serve_app.store.snapshots import KEPT_SNAPSHOTS
from serve_app.workers.archiver import Archiver

pytestmark = [pytest.mark.usefixtures("hurried_learner"), pytest.mark.timeout(120)]

ROUNDS = KEPT_SNAPSHOTS + 6
WIDE = LinTs(scale=5.0, draws=200)
"""Its draws tell one model from another that has learned the same."""
SPECS = {
    name: msgspec.structs.replace(spec, exploration=WIDE)
    if isinstance(spec.exploration, LinTs)
    else spec
    for name, spec in OF_LOOPS.items()
}


def served(client: redis.Redis) -> tuple[str, Snapshot]:
    name, published = StoredPolicy(client, "home").find(head(client))
    return name, published.snapshot


def decided(client: redis.Redis, spec: PolicySpec, number: int) -> DecisionRecord:
    """A decision, by the model that is served now, in the log with its reward."""
    ranker = Ranker(spec, (), salt=SALT)
    ranker.serve(*served(client))
    actions = [ActionRequest(name, {"size": float(at)}) for at, name in enumerate("abc")]
    request = RankRequest(actions=actions, event_id=f"e{number}", context={"hour": number / ROUNDS})
    record = asyncio.run(ranker.rank(request))
    log = RedisLog(client, KEYS)
    log.append(TickRecord())  # the log has gone on since the model was published
    log.append(record)
    log.append(RewardRecord(record.event_id, 1.0 + record.chosen[0], f"r{number}"))
    if number % 2:  # the model is published behind the entry that it learned by
        time.sleep(2 * WINDOW_S)
        for _ in range(3):
            log.append(TickRecord())
    return record


def lived(client: redis.Redis, spec: PolicySpec) -> list[DecisionRecord]:
    """A policy that has learned of each decision before the next, and a checkpoint in between."""
    loop, records = make(client, spec), []
    settle(loop)
    for number in range(ROUNDS):
        records.append(decided(client, spec, number))
        settle(loop)
        if number == 3:
            client.xadd(KEYS.log, {FIELD: encode(CheckpointRecord())})
            settle(loop)
    return records


def explained(client: redis.Redis, event_id: str, archive: str = ""):
    address = LogAddress(url_of(client), "home", archive, SALT)
    return EventExplainer(address.open(), address).explain(event_id)


@pytest.mark.one_server
@pytest.mark.parametrize("name", SPECS)
def test_a_decision_is_explained_while_its_model_is_stored_and_when_it_is_gone(
    client, tmp_path, name
):
    records = lived(client, SPECS[name])
    for record, source in (
        (records[-1], "is stored"),
        (records[1], "the start of the log"),
        (records[6], "the checkpoint at"),
        (records[5], "the checkpoint at"),
    ):
        found = explained(client, record.event_id)
        assert source in found.source
        assert found.verified == "equal"
        assert found.record == record
        first = found.explanation.actions[0]
        assert first.id == record.action_ids[record.chosen[0]]
        assert first.score == pytest.approx(sum(term.adds for term in first.terms))
    hours = [t for t in first.terms if t.features == ["context.hour"]]
    assert [round(each.value * ROUNDS) for each in hours] == [5]

    archiver = Archiver(client, "home", tmp_path, max_entries=10, max_age_s=0.0, retain_s=0.0)
    while archiver.step() or archiver.trim():
        pass
    again = explained(client, "e5", str(tmp_path))
    assert again.explanation == found.explanation
    with pytest.raises(UnknownEventError, match="never logged"):
        explained(client, "nobody", str(tmp_path))


@pytest.mark.one_server
def test_it_is_said_whether_the_logged_probabilities_follow_from_the_model(client):
    """A decision that names another model than made it, one of another build, and none at all."""
    loop, log = make(client, SPECS["ridge"]), RedisLog(client, KEYS)
    settle(loop)
    first = served(client)[0]
    record = decided(client, SPECS["ridge"], 0)
    settle(loop)
    decided(client, SPECS["ridge"], 1)
    settle(loop)
    newest, published = StoredPolicy(client, "home").find(head(client))
    while published.learned < 2:  # what has learned nothing else gives the same probabilities
        settle(loop)
        newest, published = StoredPolicy(client, "home").find(head(client))
    assert newest != first

    other = msgspec.structs.replace(published, build={**published.build, "numpy": "0.1"})
    name = digest(other.encoded)
    client.set(KEYS.blob(name), other.encoded)
    for event_id, snapshot_id in {"forged": newest, "older": name, "gone": "f" * 32}.items():
        changes = {"event_id": event_id, "snapshot_id": snapshot_id}
        log.append(msgspec.structs.replace(record, **changes))
    assert explained(client, record.event_id).verified == "equal"
    assert explained(client, "forged").verified == "unequal"
    assert explained(client, "older").verified == "older_build"
    assert explained(client, "gone").verified == "equal"  # it is made again

    twisted = msgspec.structs.replace(
        record, event_id="twisted", snapshot_id="f" * 32, pmf=record.pmf[8:] + record.pmf[:8]
    )
    log.append(twisted)
    found = explained(client, "twisted")
    assert (found.verified, found.explanation) == ("gone", None)
    at = found.entry
    address = LogAddress(url_of(client), "home", "", SALT)
    assert EventExplainer(address.open(), address).explain("twisted", at) == found


@pytest.mark.one_server
def test_the_command_says_it_and_says_what_can_be_said_no_more(client, server_url, tmp_path):
    (tmp_path / "salt").write_bytes(SALT)
    records = lived(client, SPECS["ridge"])
    options = ["--redis-url", server_url, "--data-dir", str(tmp_path)]
    shown = CliRunner().invoke(app, ["explain", "e2", *options])
    assert shown.exit_code == 0, shown.output
    assert "constant" in shown.output
    said = json.loads(CliRunner().invoke(app, ["explain", "e2", *options, "--json"]).output)
    assert said["chosen"] == [records[2].action_ids[records[2].chosen[0]]]

    # Another secret is another model: its draws are others, and nothing gives these.
    (tmp_path / "salt").write_bytes(b"another salt of the same kind")
    gone = CliRunner().invoke(app, ["explain", "e2", *options])
    assert gone.exit_code == 3
    assert "is gone" in gone.output
    assert CliRunner().invoke(app, ["explain", "nobody", *options]).exit_code == 1
