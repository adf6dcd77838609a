"""Changes of a service that runs: what they are, and whether they can be made."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bandits.errors import SpecError
from policies.artifacts.fetch import load_version, pinned
from policies.spec import PolicySpec
from serve_app.admin.artifacts import items_lacking, use_artifact
from serve_app.admin.preflight import check_logs, validate
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.settings import Settings
from serve_app.store.clients import blocking_client

PATIENCE_S = 30.0
"""Seconds to wait for a learner, and for the replicas after it."""


class PolicyChange(msgspec.Struct, frozen=True):
    """A policy that is to change.

    Attributes:
        policy: its name.
        what: ``added``, ``removed``, ``spec`` (its spec becomes another) or ``artifact`` (nothing
            but that).
        fields: the fields of the spec that become others.
        anew: whether a part changes that the learned model depends on: learning starts anew.
        artifact: the version that serves, and the one that is to; None where it stays.
    """

    policy: str
    what: str
    fields: list[str] = []
    anew: bool = False
    artifact: tuple[str, str] | None = None

    @property
    def redeploys(self) -> bool:
        """Whether processes have to start for it."""
        return self.what != "artifact"


class ApplyRequest(msgspec.Struct, frozen=True):
    """The question of ``banditloop apply`` to a service: serve these policies, and no others.

    Attributes:
        specs: all of them, each as JSON.
        dry_run: whether to say what would change, and change nothing.
    """

    specs: list[msgspec.Raw]
    dry_run: bool = False


class ApplyAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """An answer of the service.

    Attributes:
        changes: what changes; of the first answer.
        note: what has happened meanwhile.
        code: why it was refused or has failed, as errors have it; the last answer.
        seconds: how long it took; of the last answer, when all is served.
    """

    changes: list[PolicyChange] | None = None
    note: str = ""
    code: str = ""
    seconds: float | None = None


def plan_changes(
    settings: Settings, running: Sequence[PolicySpec], wanted: Sequence[PolicySpec]
) -> list[PolicyChange]:
    """Return what changes when other specs are served than those that are.

    Args:
        settings: of the service; its Redis is asked.
        running: the specs that are served.
        wanted: those that are to be: all of them.

    Raises:
        BanditloopError: they cannot be served; it names the field or file.
    """
    if not wanted:
        raise SpecError("a service has at least one policy", "policies")
    validate(settings, wanted)
    check_logs(str(settings.redis_url), wanted)

    before, after = ({spec.name: spec for spec in specs} for specs in (running, wanted))
    changes = [PolicyChange(name, "removed") for name in before if name not in after]
    with contextlib.closing(blocking_client(str(settings.redis_url))) as client:
        for name, spec in after.items():
            if name not in before:
                changes.append(PolicyChange(name, "added"))
                continue

            fields = [
                field
                for field in PolicySpec.__struct_fields__
                if getattr(spec, field) != getattr(before[name], field)
            ]
            anew = spec.model_digest != before[name].model_digest
            artifact = _other_artifact(StoredPolicy(client, name), spec)
            if fields or artifact:
                what = "spec" if fields else "artifact"
                changes.append(PolicyChange(name, what, fields, anew, artifact))
    return changes


def notes_on_artifacts(settings: Settings, specs: Sequence[PolicySpec]) -> list[str]:
    """Return a line for each policy whose folder has another artifact than the log says.

    Args:
        settings: of the service; its Redis is asked.
        specs: the specs that are served.
    """
    notes: list[str] = []
    with contextlib.closing(blocking_client(str(settings.redis_url))) as client:
        for spec in specs:
            other = _other_artifact(StoredPolicy(client, spec.name), spec)
            if other is not None:
                notes.append(
                    f"policy {spec.name}: artifact {other[0]} serves, as its log says; current in"
                    f" {spec.artifact} is {other[1]}: banditloop artifact use has it serve"
                )
    return notes


def serve_artifact(settings: Settings, spec: PolicySpec, version: str) -> str:
    """Have a version of a policy's artifact serve; return what has become of it, in words.

    Args:
        settings: of the service.
        spec: the policy.
        version: which one, of the spec's artifact.

    Raises:
        BanditloopError: it does not serve, with the reason.
    """
    artifact = load_version(str(spec.artifact), version)
    with contextlib.closing(blocking_client(str(settings.redis_url))) as client:
        stored = StoredPolicy(client, spec.name)
        lacking = items_lacking(artifact, stored.catalogue()).said
        outcome = use_artifact(stored, spec, artifact, within_s=PATIENCE_S)
    effect = outcome.effect if outcome.done else f"artifact {version}: no learner has read it yet"
    return f"{effect}; {lacking}" if lacking else effect


def _other_artifact(stored: StoredPolicy, spec: PolicySpec) -> tuple[str, str] | None:
    """Return the version that serves and the one that the spec's folder has, if it is another."""
    serves = stored.artifact()
    if spec.artifact is None or serves is None:
        return None
    current = Path(pinned(spec.artifact).partition("?")[0]).name
    return None if current == serves else (serves, current)
