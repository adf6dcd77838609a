"""Specs that clients have set: which of them are served, and until when.

The spec of a policy is what was said last: by its file, or by a client. What a client has set
stands in for the file as long as the file says what it said then.
"""

import contextlib
from collections.abc import Sequence

import msgspec

from bandits.errors import BanditloopError, LogUnavailableError
from policies.spec import PolicySpec, decode_spec
from serve_app.settings import Settings
from serve_app.store.clients import FAILURES, Redis, blocking_client
from serve_app.store.wanted_specs import (
    WantedSpec,
    is_governed,
    read_wanted,
    say_governed,
    write_wanted,
)


def settled(client: Redis, given: Sequence[PolicySpec]) -> tuple[list[PolicySpec], list[str]]:
    """Return the specs that are to be served, and what is to be said of them.

    Args:
        client: a connection to the service's Redis.
        given: those of the files.
    """
    specs: list[PolicySpec] = []
    notes: list[str] = []
    for spec in given:
        wanted = read_wanted(client, spec.name)
        if wanted is None:
            specs.append(spec)
            continue

        try:
            was_set = decode_spec(bytes(wanted.spec))
        except BanditloopError:
            was_set = spec
        fields = ", ".join(changed_fields(spec, was_set))

        if wanted.of == spec.digest and fields:
            specs.append(was_set)
            notes.append(f"policy {spec.name}: clients have set {fields}; its file says otherwise")
        else:
            write_wanted(client, spec.name, None)
            specs.append(spec)
            if fields:
                notes.append(
                    f"policy {spec.name}: its file has changed since clients have set {fields}: the"
                    " file counts"
                )
    return specs, notes


def settled_at(
    settings: Settings, given: Sequence[PolicySpec]
) -> tuple[list[PolicySpec], list[str]]:
    """Return what ``settled`` does; where the Redis does not answer, files count.

    Args:
        settings: of the service.
        given: the specs of the files.
    """
    with (
        contextlib.suppress(*FAILURES),
        contextlib.closing(blocking_client(str(settings.redis_url))) as client,
    ):
        return settled(client, given)
    return list(given), []


def governed(settings: Settings, given: Sequence[PolicySpec]) -> list[PolicySpec] | None:
    """Say that clients may set specs, and return those that are to be served.

    None: the Redis does not answer.

    Args:
        settings: of the service.
        given: the specs of the files.
    """
    with (
        contextlib.suppress(*FAILURES),
        contextlib.closing(blocking_client(str(settings.redis_url))) as client,
    ):
        say_governed(client)
        return settled(client, given)[0]
    return None


def keep_served(
    settings: Settings, given: Sequence[PolicySpec], served: Sequence[PolicySpec]
) -> None:
    """Have policies be what is served, whatever clients have set.

    Args:
        settings: of the service.
        given: the specs of the files.
        served: those that are served.
    """
    before = {spec.name: spec for spec in given}
    with (
        contextlib.suppress(*FAILURES),
        contextlib.closing(blocking_client(str(settings.redis_url))) as client,
    ):
        for spec in served:
            file = before.get(spec.name, spec)
            kept = WantedSpec(msgspec.Raw(msgspec.json.encode(spec)), file.digest)
            write_wanted(client, spec.name, None if file == spec else kept)


def changed_fields(before: PolicySpec, after: PolicySpec) -> list[str]:
    """Return the names of the fields in which two specs differ.

    Args:
        before: one.
        after: the other.
    """
    return [
        name
        for name in PolicySpec.__struct_fields__
        if getattr(before, name) != getattr(after, name)
    ]


def spec_now(client: Redis, served: PolicySpec) -> PolicySpec:
    """Return the spec that a policy has, or will have in a moment.

    Args:
        client: a connection to the service's Redis.
        served: the one that it has now.
    """
    wanted = read_wanted(client, served.name)
    return served if wanted is None else decode_spec(bytes(wanted.spec))


def want(client: Redis, served: PolicySpec, spec: PolicySpec) -> None:
    """Have a policy be what a spec says.

    Args:
        client: a connection to the service's Redis.
        served: the spec that it has now.
        spec: the one that it is to have.

    Raises:
        LogUnavailableError: nobody has it served.
    """
    if not is_governed(client):
        raise LogUnavailableError(
            "nobody has served what is set over HTTP now: send it again once the service is up",
            "configuration",
        )
    before = read_wanted(client, served.name)
    of = served.digest if before is None else before.of
    write_wanted(client, served.name, WantedSpec(msgspec.Raw(msgspec.json.encode(spec)), of))
