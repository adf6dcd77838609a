"""Change what a policy serves or has learned: pin, unpin, roll back, start from a trained model.

Each appends an entry to the policy's log, and waits until a learner has done what it says.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bandits.errors import SnapshotConflictError, SnapshotError
from bandits.log.codec import digest
from bandits.log.positions import is_after, position_before, position_ms
from bandits.log.records import MergeRecord, PinRecord, RollbackRecord, WarmStartRecord
from policies.artifacts.learner_model import TrainedModel
from policies.spec import PolicySpec, decode_spec
from serve_app.admin.outcomes import has_become, is_pinned
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.store.checkpoints import Root
from serve_app.store.snapshots import Published


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a change. ``done``: a learner has made it; else none has read it in time.

    ``effect``: what holds once it is done, in words.
    """

    policy: str
    done: bool
    effect: str


def pin(stored: StoredPolicy, snapshot_id: str, *, within_s: float) -> Outcome:
    """Serve a snapshot from now on, whatever is learned meanwhile.

    Args:
        stored: The policy.
        snapshot_id: Id of the snapshot, or its beginning.
        within_s: Seconds to wait for a learner.

    Raises:
        SnapshotError: There is no such snapshot, or it was learned for another spec.
        RefusedError, StalledError: The learner does not do it; the error gives the reason.
    """
    name, published = stored.find(snapshot_id)

    # A pinned model is served under the spec in force, so nothing of the two may differ.
    current = _served_spec(stored)
    if current not in {None, published.spec}:
        raise SnapshotConflictError(
            "it was learned for another spec than is served now, so it cannot be pinned",
            "snapshot_id",
        )

    at = stored.control(PinRecord(name))
    effect = f"{name} is served; learning goes on"
    return _outcome(
        stored, at, "pin", effect, within_s=within_s, check=lambda: is_pinned(stored, name)
    )


def unpin(stored: StoredPolicy, *, within_s: float) -> Outcome:
    """Serve the newest snapshot again.

    Args:
        stored: The policy.
        within_s: Seconds to wait for a learner.

    Raises:
        RefusedError, StalledError: The learner does not do it; the error gives the reason.
    """
    at = stored.control(PinRecord(None))
    return _outcome(stored, at, "pin", "the newest snapshot is served", within_s=within_s)


def rollback(stored: StoredPolicy, snapshot_id: str, *, within_s: float) -> Outcome:
    """Restore what had been learned at a snapshot; what was learned since is dropped.

    Args:
        stored: The policy.
        snapshot_id: Id of the snapshot, or its beginning.
        within_s: Seconds to wait for a learner.

    Raises:
        SnapshotError: There is no such snapshot, or its model is of another shape.
        RefusedError, StalledError: The learner does not do it; the error gives the reason.
    """
    name, published = stored.find(snapshot_id)
    root = stored.checkpoints.root()
    if root is not None and is_after(root.position, published.position):
        raise SnapshotConflictError(
            f"the log begins at its root, {root.position}, and this snapshot is of before",
            "snapshot_id",
        )
    if root is not None and root.others:
        _demand_given(stored, root, published.position)

    # Learning goes on from its model, so only the model's shape has to be the same.
    current = _served_spec(stored)
    if current not in {None, published.spec}:
        in_force, own = (
            stored_spec(stored, str(spec_digest)) for spec_digest in (current, published.spec)
        )
        if in_force.model_digest != own.model_digest:
            raise SnapshotConflictError(
                "its model is of another shape than that of the spec in force, so it cannot be"
                " rolled back to",
                "snapshot_id",
            )

    at = stored.control(RollbackRecord(name, published.position, published.artifact))
    effect = f"the model is that of {name} again ({published.learned:,} interactions)"
    if published.artifact is not None:
        effect += f", served with artifact {published.artifact}"
    return _outcome(stored, at, "rollback", effect, within_s=within_s)


def warm_start(stored: StoredPolicy, model: TrainedModel, *, within_s: float) -> Outcome:
    """Go on learning from a model that was trained on another log.

    Args:
        stored: The policy.
        model: The model; it replaces what was learned.
        within_s: Seconds to wait for a learner.

    Raises:
        SnapshotError: The policy has several partitions, or a spec of another shape than the model.
        RefusedError, StalledError: The learner does not do it; the error gives the reason.
    """
    if stored.partitions > 1:
        raise SnapshotError(
            f"{stored.keys.policy} is learned in {stored.partitions} partitions, and each would"
            " count a whole model again: a warm start needs partitions: 1",
            "partitions",
        )

    current = _served_spec(stored)
    if (
        current is not None
        and stored_spec(stored, current).model_digest != model.spec().model_digest
    ):
        raise SnapshotError(
            "the model was trained for a spec whose kind, use or learner differ from those of"
            f" {stored.keys.policy}: train it with the spec that is served",
            "spec",
        )

    # The model has to be stored before an entry of the log names it.
    name = digest(model.encoded)
    stored.log.put_blob(name, model.encoded)
    at = stored.control(WarmStartRecord(name))
    effect = f"learning goes on from {model.learned:,} interactions of {name}"
    return _outcome(stored, at, "warm_start", effect, within_s=within_s)


def _demand_given(stored: StoredPolicy, root: Root, position: str) -> None:
    """Refuse a merge to which a partition had given what it knew before its log begins."""
    entries = stored.history.encoded(position_before(position), position)
    record = next((entry.record for entry in entries), None)
    inputs = record.inputs if isinstance(record, MergeRecord) else []
    for given, begin in zip(inputs, [root, *root.others], strict=False):
        if given is not None and is_after(begin.position, given.position):
            raise SnapshotConflictError(
                f"a partition has learned nothing between its root, {begin.position}, and this"
                " snapshot: go back to a later one",
                "snapshot_id",
            )


def stored_spec(stored: StoredPolicy, spec_digest: str) -> PolicySpec:
    """Return a spec that was in force.

    Args:
        stored: The policy.
        spec_digest: Digest of the spec.
    """
    return decode_spec(stored.history.blob(spec_digest))


def changes_between(stored: StoredPolicy, before: Published, after: Published) -> list[str]:
    """Describe in lines what differs between two snapshots.

    Args:
        stored: The policy.
        before: The older snapshot.
        after: The younger one.
    """
    learned = after.learned - before.learned
    seconds = (position_ms(after.position) - position_ms(before.position)) / 1000
    lines = [f"{learned:+,} interactions, {seconds:,.1f} s of log"]

    if before.spec != after.spec:
        old, new = stored_spec(stored, before.spec), stored_spec(stored, after.spec)
        fields = [
            name
            for name in PolicySpec.__struct_fields__
            if getattr(old, name) != getattr(new, name)
        ]
        lines.append(f"spec: {', '.join(fields)} changed")

    if before.catalogue != after.catalogue:
        lines.append("another catalogue")
    if before.artifact != after.artifact:
        lines.append(f"artifact: {before.artifact or 'not said'} -> {after.artifact}")

    # A build changes when libraries or the machine do: the same log then gives other last digits.
    build = [
        f"{key} {before.build.get(key)} -> {value}"
        for key, value in after.build.items()
        if before.build.get(key) != value
    ]
    if build:
        lines.append(f"build: {', '.join(build)}")
    return lines


def _served_spec(stored: StoredPolicy) -> str | None:
    """Return the digest of the served snapshot's spec, None if none is served."""
    head = stored.head()
    return None if head is None else stored.find(head)[1].spec


def _outcome(
    stored: StoredPolicy,
    at: str,
    kind: str,
    effect: str,
    *,
    within_s: float,
    check: Callable[[], None] = lambda: None,
) -> Outcome:
    """Wait until the learner has read the entry ``at``; ``check`` may raise though it was read."""
    done = has_become(stored, at, kind, within_s=within_s)
    if done:
        check()
    return Outcome(stored.keys.policy, done, effect)
