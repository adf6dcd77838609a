"""Another artifact serves while requests come: none fails, all are logged, and the log decides."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import msgspec
import numpy as np
import pytest
import redis
from support.fakes import SALT
from support.loops import verdicts
from support.servers import Server, binary_of

from bandits.errors import ArtifactError, SpecError
from bandits.log.join import JoinRule
from bandits.log.records import ArtifactRecord, DecisionRecord
from policies.artifacts.fetch import load_artifact, load_version
from policies.artifacts.source_artifact import Artifact, TrainedSource, write
from policies.items.catalogue import Catalogue
from policies.requests import RankRequest
from policies.spec import ArtifactSource, PolicySpec
from serve_app.admin.artifacts import items_lacking, use_artifact
from serve_app.admin.control import pin, rollback, unpin
from serve_app.admin.freshness import read_all
from serve_app.admin.outcomes import has_become
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.replica import artifact_swap
from serve_app.replica.policy_service import RedisPolicyService
from serve_app.store.clients import asyncio_client
from serve_app.store.event_log import LogWriter
from serve_app.store.keys import PROCESSES, Keys, partitions
from serve_app.workers.learner_factory import learner_of_log, learner_of_partition

ITEMS = tuple(f"i{number:02}" for number in range(20))


def train(root: Path, seed: int, items: tuple[str, ...] = ITEMS) -> str:
    """An artifact of these items, in an order of its own; its version."""
    order = tuple(np.random.default_rng(seed).permutation(items).tolist())
    counts = np.arange(1, 1 + len(order), dtype=np.float32)
    catalogue = tuple({"id": item, "features": {"length": len(item)}} for item in sorted(items))
    return write(
        Artifact(catalogue, order, {"popular": TrainedSource("popular", {"counts": counts})}), root
    )


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    """A server of the test's own."""
    with Server(binary_of("valkey"), tmp_path / "server") as out:
        yield out


@pytest.fixture
def spec(tmp_path) -> PolicySpec:
    """A policy of artifacts in a folder."""
    return PolicySpec(
        "home",
        sources=[ArtifactSource("popular")],
        artifact=str(tmp_path / "shop"),
        join=JoinRule(window_s=0.2),
        limit=5,
    )


@contextmanager
def learning(url: str, spec: PolicySpec) -> Iterator[None]:
    """A learner as the service starts it: it declares what is current in the spec's folder."""
    trained = load_artifact(str(spec.artifact))
    given = {
        "salt": SALT,
        "publish_interval_s": 0.2,
        "artifact": trained.version,
        "catalogue": Catalogue.of(trained.catalogue),
    }
    stop, threads = threading.Event(), []
    for partition in range(spec.partitions):
        connection = redis.Redis.from_url(url)
        loop = (
            learner_of_log(connection, spec, **given)
            if spec.partitions == 1
            else learner_of_partition(
                connection, spec, partition=partition, merge_interval_s=0.2, **given
            )
        )
        threads.append((connection, threading.Thread(target=loop.run, args=(stop,))))
    for _, thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for connection, thread in threads:
            thread.join(10)
            connection.close()


class Replica:
    """One replica of the policy, and the decisions that it has answered."""

    def __init__(self, url: str, spec: PolicySpec, name: str) -> None:
        self.client = asyncio_client(url, timeout_s=5.0)
        self.name = name
        self.answers: list[tuple[DecisionRecord, bool]] = []
        self.service = RedisPolicyService(
            spec,
            self.client,
            LogWriter(self.client),
            salt=SALT,
            replica=name,
            follow_interval_s=0.01,
        )

    async def __aenter__(self) -> Self:
        # As whoever pushes the metrics of a process does.
        await self.client.zadd(PROCESSES, {self.name: time.time() + 600})
        self.service.start()
        await until(lambda: self.service.ready)
        self._load = asyncio.create_task(self._ask())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._load.cancel()
        await asyncio.wait([self._load])
        await self.client.zrem(PROCESSES, self.name)
        await self.service.stop()
        await self.client.aclose()

    async def _ask(self) -> None:
        while True:
            self.answers.append(await self.service.rank(RankRequest()))
            await asyncio.sleep(0.001)

    @property
    def serves(self) -> str | None:
        """The version that its newest decision names."""
        return self.answers[-1][0].artifact if self.answers else None


async def until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.005)


def first_of(record: DecisionRecord) -> str:
    """What the source proposed first."""
    return record.action_ids[int(np.argmax(record.source_scores()["popular"]))]


@pytest.mark.parametrize("count", [1, 2])
async def test_three_swaps_under_load_a_rollback_and_a_restart(
    server: Server, spec: PolicySpec, count: int
):
    spec = msgspec.structs.replace(spec, partitions=count)
    root = Path(str(spec.artifact))
    versions = [train(root, seed) for seed in range(4)]
    best = {each: load_version(str(root), each).items[-1] for each in versions}
    train(root, 0)  # is current again
    with server.client() as client:
        stored = StoredPolicy(client, "home")

        async def use(version: str) -> None:
            artifact = load_version(str(root), version)
            outcome = await asyncio.to_thread(
                use_artifact, stored, spec, artifact, within_s=30, load_s=30
            )
            assert outcome.done
            assert "in 2 of 2 replicas" in outcome.effect
            await until(lambda: one.serves == two.serves == version)

        with learning(server.url, spec):
            async with (
                Replica(server.url, spec, "r1") as one,
                Replica(server.url, spec, "r2") as two,
            ):
                await until(lambda: one.serves == two.serves == versions[0])
                await use(versions[1])

                # A snapshot is served with the artifact that it was served with.
                kept = str(stored.head())
                await asyncio.to_thread(pin, stored, kept, within_s=30)
                at = stored.control(ArtifactRecord(versions[2]))
                await asyncio.to_thread(has_become, stored, at, "artifact", within_s=30)
                await asyncio.sleep(0.1)
                assert (one.serves, two.serves) == (versions[1], versions[1])
                await asyncio.to_thread(unpin, stored, within_s=30)
                await until(lambda: one.serves == two.serves == versions[2])
                outcome = await asyncio.to_thread(rollback, stored, kept, within_s=30)
                assert versions[1] in outcome.effect
                await until(lambda: one.serves == two.serves == versions[1])

                for version in versions[2:]:
                    await use(version)
                info = await one.service.info()
                assert (info.artifact, info.artifact_wanted) == (versions[3], None)
                assert info.catalogue == one.service.ranker.offering.catalogue.digest
                answers = [*one.answers, *two.answers]

        assert all(logged for _, logged in answers)
        for record, _ in answers:
            assert first_of(record) == best[record.artifact]
        logged = [
            each.record
            for keys in partitions("home", count)
            for each in read_all(client, keys)
            if isinstance(each.record, DecisionRecord)
        ]
        assert {each.event_id for each in logged} >= {record.event_id for record, _ in answers}
        assert {each.artifact for each in logged} == set(versions)

        # A restart, while the folder's current one is another: the log decides.
        with learning(server.url, spec):
            async with Replica(server.url, spec, "r3") as three:
                await until(lambda: three.serves == versions[3])
        records = [each.record for each in read_all(client, Keys("home"))]
        said = [each.version for each in records if isinstance(each, ArtifactRecord)]
        assert said == [*versions[:3], *versions[2:]]
        assert set(verdicts(client, salt=SALT)) == {"identical"}


async def test_a_replica_that_cannot_load_it_serves_on_and_nothing_changes_unless_forced(
    server: Server, spec: PolicySpec, tmp_path: Path, monkeypatch
):
    """Its node lacks the version: here a folder of its own, of which it is told another path."""
    monkeypatch.setattr(artifact_swap, "RETRY_S", 0.1)
    root, far = Path(str(spec.artifact)), tmp_path / "far" / "shop"
    first = train(root, 0)
    train(far, 0)
    second = train(root, 1)
    train(root, 0)
    elsewhere = msgspec.structs.replace(spec, artifact=str(far))
    assert elsewhere.digest == spec.digest, "folders differ by machine"
    with server.client() as client, learning(server.url, spec):
        stored = StoredPolicy(client, "home")
        async with (
            Replica(server.url, spec, "r1") as one,
            Replica(server.url, elsewhere, "r2") as two,
        ):
            await until(lambda: one.serves == two.serves == first)
            artifact = load_version(str(root), second)

            async def use(*, force: bool) -> str:
                outcome = await asyncio.to_thread(
                    use_artifact, stored, spec, artifact, within_s=3, load_s=30, force=force
                )
                return outcome.effect

            with pytest.raises(ArtifactError, match=r"1 of 2 replicas cannot load .*r2"):
                await use(force=False)
            assert (one.serves, two.serves, stored.artifact()) == (first, first, first)

            assert "in 1 of 2 replicas; r2" in await use(force=True)
            await until(lambda: one.serves == second)
            info = await two.service.info()
            assert (info.artifact, info.artifact_wanted) == (first, second)
            assert "cannot be read" in info.artifact_trouble.reason
            other = await one.service.info()
            assert (other.artifact, other.artifact_wanted) == (second, None)
            assert "cannot be read" in other.artifact_trouble.reason
            assert two.service.artifact_is_old
            assert two.service.artifacts.failures

            # As soon as it is there it serves.
            train(far, 1)
            await until(lambda: two.serves == second)
            assert not two.service.artifact_is_old
            assert all(logged for _, logged in [*one.answers, *two.answers])


async def test_what_the_artifact_lacks_is_refused_and_what_the_catalogue_lacks_is_counted(
    server: Server, spec: PolicySpec
):
    root = Path(str(spec.artifact))
    train(root, 0)
    more = load_version(str(root), train(root, 1, (*ITEMS, "new")))
    assert items_lacking(more, Catalogue.of([{"id": item} for item in ITEMS])).said.startswith(
        "the catalogue lacks 1 of its 21 items"
    )
    assert items_lacking(more, Catalogue()).said == ""
    with server.client() as client, learning(server.url, spec):
        other = msgspec.structs.replace(spec, sources=[ArtifactSource("als")])
        with pytest.raises(SpecError, match="als"):
            use_artifact(StoredPolicy(client, "home"), other, more, within_s=1)


async def test_a_new_leader_says_what_it_was_deployed_with_although_entries_never_cease(
    server: Server, spec: PolicySpec
):
    """Else the replicas of a new spec would wait for as long as there are requests."""
    train(Path(str(spec.artifact)), 0)
    other = msgspec.structs.replace(spec, floor=0.3)
    with server.client() as client:
        stored = StoredPolicy(client, "home")

        def spec_of_head() -> str:
            return stored.find(str(stored.head()))[1].spec

        with learning(server.url, spec):
            one = Replica(server.url, spec, "r1")
            await one.__aenter__()
        try:
            assert spec_of_head() == spec.digest
            with learning(server.url, other):
                deadline = time.monotonic() + 15
                while await asyncio.to_thread(spec_of_head) != other.digest:
                    assert time.monotonic() < deadline, "it was never declared"
                    await asyncio.sleep(0.05)
        finally:
            await one.__aexit__()
