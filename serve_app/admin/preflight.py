"""Checks before a start, while everything that is wrong can still be said in one line."""

import contextlib
from collections.abc import Collection, Iterable, Sequence

from msgspec import UNSET

from bandits.errors import SpecError
from policies.artifacts.fetch import load_artifact
from policies.artifacts.prior import prior_of
from policies.artifacts.profile_file import open_profiles
from policies.blend import make_learner
from policies.items.catalogue import Catalogue
from policies.shadows.opening import shadows_of
from policies.sources import load_sources
from policies.spec import PolicySpec, decode_spec
from policies.spec.activities import types_looked_at
from policies.spec.checks import admit
from serve_app.api.api_keys import read_keys
from serve_app.host.embedded import alone
from serve_app.host.loopback import refuse_open_doors
from serve_app.host.requirements import (
    demand_archive,
    demand_cluster,
    demand_folder,
    demand_haproxy,
    demand_otlp,
    demand_port,
    demand_salt,
)
from serve_app.settings import Settings
from serve_app.store.clients import FAILURES, blocking_client
from serve_app.store.keys import Keys, partitions
from serve_app.store.merges import partition_count
from serve_app.store.newer_builds import check_fold, check_format
from serve_app.store.reachable import demand_redis
from serve_app.store.spaces import check_members, moved, space_name


def demand_all(
    settings: Settings, specs: Sequence[PolicySpec], address: str | None = None
) -> list[str]:
    """Try everything that a service needs: of this machine, of others, and of its specs.

    Returns what it can do without, and what that means, a line each.

    Args:
        settings: of the service.
        specs: the policies to serve.
        address: that of the Ray cluster which is to serve; None: the service starts its own.

    Raises:
        BanditloopError: it names what is missing and what to do.
    """
    # The front: on a cluster it is not this machine's affair.
    if address is None:
        refuse_open_doors(settings)
        demand_port(settings.host, settings.port)
        demand_haproxy()
    else:
        demand_cluster(address, settings.redis_timeout_s)
    if settings.redis_url is not None:
        demand_redis(settings.redis_url, settings.redis_timeout_s)

    validate(settings, specs)

    # What is kept on this machine. Last, because folders and the salt are made.
    demand_folder(settings.data_dir, "data_dir", "--data-dir")
    check_format(settings.data_dir)
    if settings.redis_url is None:
        demand_folder(settings.data_dir / "valkey", "data_dir", "--data-dir")
        with alone(settings.data_dir / "valkey"):
            pass

    demand_salt(settings)
    if settings.archive_root():
        demand_archive(settings.archive_root())
    profiled = {spec.shares for spec in specs if spec.profile is not UNSET}
    return [
        note
        for spec in specs
        for note in (
            _note_on_profiles(settings, spec),
            _note_on_prior(spec),
            _note_on_space(spec, profiled),
            *notes_on_shadows([spec]),
        )
        if note
    ]


def notes_on_shadows(specs: Iterable[PolicySpec]) -> list[str]:
    """Return a line for each shadow that cannot be followed: its policy is served all the same."""
    return [
        f"policy {spec.name}: shadow {each.name} is not followed: {each.refused}"
        for spec in specs
        for each in shadows_of(spec)
        if each.refused
    ]


def _note_on_profiles(settings: Settings, spec: PolicySpec) -> str:
    """Return what is to be said of a policy's profiles, "" if nothing is.

    Raises:
        ArtifactError: they are damaged, or cannot be reached.
    """
    if spec.profiles is None or spec.artifact is None:
        return ""
    artifact, types = load_artifact(spec.artifact), types_looked_at(spec)
    _, note = open_profiles(spec.profiles, artifact, settings.secret(), types)
    return f"policy {spec.name}: {note}" if note else ""


def _note_on_prior(spec: PolicySpec) -> str:
    """Return what is to be said of a policy's prior, "" if nothing is."""
    if spec.artifact is None:
        return ""
    return f"policy {spec.name}: {prior_of(spec, load_artifact(spec.artifact))[1]}"


def _note_on_space(spec: PolicySpec, profiled: Collection[str]) -> str:
    """Return what is to be said of a policy's space, "" if nothing is.

    Args:
        spec: the policy's.
        profiled: the spaces of which some policy has profiles.
    """
    if spec.profile is not UNSET or spec.shares not in profiled:
        return ""
    return (
        f"policy {spec.name}: it shares the space {spec.shares} without profile, so its log names"
        " users by keyed pseudonyms, which an erasure cannot unlink"
    )


def validate(settings: Settings, specs: Sequence[PolicySpec]) -> None:
    """Read and build once what every process of the service will.

    Args:
        settings: of the service.
        specs: the policies to serve.

    Raises:
        SpecError, ArtifactError, StartupError, ArchiveError: it names the field or file.
    """
    if settings.keys_file is not None:
        read_keys(settings.keys_file)
    demand_otlp(settings.otlp_endpoint)
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names):
        raise SpecError(f"two specs share a name: {sorted(names)}", "name")

    check_members(specs)
    for spec in specs:
        # A spec made in Python is held to what a file is: its name becomes part of keys.
        admit(decode_spec(spec.encoded))
        make_learner(spec, salt=b"validation")
        if spec.partitions > 1:
            spec.learner.check_mergeable()
        trained = load_artifact(spec.artifact) if spec.artifact else None
        load_sources(trained, spec.sources)
        if trained is not None:
            Catalogue.of(trained.catalogue)
    if settings.archive_root():
        from policies.storage import Storage  # noqa: PLC0415 - pyarrow takes 30 MB

        Storage(settings.archive_root(), "")


def check_logs(url: str, specs: Sequence[PolicySpec]) -> None:
    """Refuse a log that a newer build folds, or of other partitions, or of another space.

    With another number rewards would miss their decisions, in another space decisions their items.
    A Redis that does not answer is not
    asked: replicas and learners wait for it.

    Args:
        url: the Redis.
        specs: the policies to serve.

    Raises:
        NewerBuildError, SpecError: it names the policy.
    """
    with contextlib.suppress(*FAILURES), contextlib.closing(blocking_client(url)) as client:
        for spec in specs:
            for keys in partitions(spec.name, spec.partitions):
                check_fold(client, keys)

            # A policy that has a snapshot has begun: how its log is divided is settled.
            begun = client.exists(Keys(spec.name).head)
            count = partition_count(client, spec.name) if begun else spec.partitions
            if count != spec.partitions:
                raise SpecError(
                    f"the log of {spec.name} is in {count} partitions and stays so: set"
                    f" partitions to {count}, or begin a policy of another name",
                    "partitions",
                )
            before = space_name(client, spec.name) if begun else spec.shares
            if before != spec.shares:
                raise moved(spec, before)
