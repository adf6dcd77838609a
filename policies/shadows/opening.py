"""From what a spec says of its shadows to the policies that they are.

A shadow that cannot be one never keeps its policy from being served: what is wrong with it is said,
and nobody follows the log for it.
"""

from pathlib import Path
from typing import Any

import msgspec

from bandits.errors import BanditloopError, SpecError
from bandits.log.codec import digest
from policies.artifacts.learner_model import TrainedModel, decode_trained
from policies.blend import make_learner
from policies.spec import PolicySpec, spec_of
from policies.spec.policy import with_model, with_paths
from policies.typed_yaml import as_type, choices, parse_yaml

MOST = 8
"""Shadows of one policy: each reads its log once more."""
OWN = ("name", "kind", "use", "learner", "exploration", "within", "floor", "prior")
"""What a shadow's spec says of itself: its model, and how that explores."""
NOT_ASKED = (
    *("artifact", "profiles", "partitions", "holdout", "refresh", "on_change", "shadow"),
    *("mode", "learn", "baseline"),
)
"""Fields that a shadow's spec may have, and that make no difference to a shadow."""
OF_NETWORK = ("use", "learner", "exploration", "floor")
"""What is as the network was trained for, where a shadow of kind rl does not say it."""


class Shadow(msgspec.Struct, frozen=True):
    """A shadow as its policy's spec says it.

    Attributes:
        name: its own; where none can be read, its place in the spec or its file.
        spec: the policy's spec with the shadow's model; None: it cannot be followed.
        refused: why not, and which field is at fault; empty where it can.
        network: the model that was trained apart, of one that learns nothing from the log.
    """

    name: str
    spec: PolicySpec | None = None
    refused: str = ""
    network: bytes = b""

    @property
    def digest(self) -> str:
        """The name of what it computes: another model, or another way to explore, is another."""
        if self.spec is None:
            return ""
        known = msgspec.to_builtins(self.spec, order="deterministic")
        known["learner"] = msgspec.to_builtins(self.spec.learner.without_standbys)
        model = {field: known.get(field) for field in OWN if field != "name"}
        if self.network:
            model["network"] = digest(self.network)
        return digest(msgspec.json.encode(model, order="deterministic"))


def shadows_of(policy: PolicySpec) -> list[Shadow]:
    """Return the shadows of a policy, in the order of its spec."""
    found: list[Shadow] = []
    for place, said in enumerate(policy.shadow or ()):
        shadow = _shadow_of(policy, place, said)
        if shadow.spec is not None and shadow.name in {each.name for each in found}:
            shadow = Shadow(shadow.name, None, f"shadow[{place}]: another one has this name")
        if shadow.spec is not None and place >= MOST:
            why = f"a policy has {MOST} shadows at most: each reads its log once more"
            shadow = Shadow(shadow.name, None, f"shadow[{place}]: {why}")
        found.append(shadow)
    return found


def _shadow_of(policy: PolicySpec, place: int, said: str | dict[str, Any]) -> Shadow:
    """Return one of the shadows, or what is wrong with it."""
    where = f"shadow[{place}]"
    name, raw = where, said
    try:
        if isinstance(raw, str):
            where, name = f"{where}: {raw}", Path(raw).stem
            raw = read_shadow(raw)
        name = str(raw.get("name", name))
        trained = _trained_apart(raw)
        spec = _spec_of(policy, raw if trained is None else _of_network(raw, trained))
        network = b"" if trained is None else trained.checkpoint
        # What a learner finds wrong with its own arguments, or with its network, is found here.
        make_learner(spec, salt=b"validation", checkpoint=network or None)
    except BanditloopError as error:
        target = f": {error.target}" if error.target and error.target != "spec" else ""
        return Shadow(name, None, f"{where}{target}: {error.message}")
    return Shadow(name, spec, network=network)


def _trained_apart(raw: dict[str, Any]) -> TrainedModel | None:
    """Return the model that a shadow of kind rl names; None: it is of another kind.

    Raises:
        SpecError: it names none, or there is none in the file that it names.
        SnapshotError: the file is damaged.
    """
    path, needed = raw.get("model"), raw.get("kind") == "rl"
    if not needed:
        if path is not None:
            raise SpecError("only a shadow of kind rl is trained apart: leave model out", "model")
        return None
    if not isinstance(path, str):
        raise SpecError(
            "a network learns nothing from the log: name the file that banditloop train rl wrote,"
            " as model: artifacts/rl/model",
            "model",
        )

    try:
        trained = decode_trained(Path(path).read_bytes())
    except OSError as error:
        raise SpecError(
            f"{path} cannot be read ({error.strerror}): banditloop train rl makes one", "model"
        ) from error
    if trained.spec().kind != "rl":
        raise SpecError(f"{path} is no network, but a model that learns from a log", "model")
    return trained


def _of_network(raw: dict[str, Any], trained: TrainedModel) -> dict[str, Any]:
    """Return what a shadow says, and beside it what its network was trained for."""
    whole: dict[str, Any] = msgspec.to_builtins(trained.spec())
    said = {field: value for field, value in raw.items() if field != "model"}
    return {field: whole[field] for field in OF_NETWORK if field in whole} | said


def read_shadow(path: str) -> dict[str, Any]:
    """Return what the file of a shadow's spec says.

    Raises:
        SpecError: there is no such file, or it is no spec.
    """
    try:
        raw = parse_yaml(Path(path).read_bytes())
    except OSError as error:
        raise SpecError(f"{error.strerror}: put the spec's file there", "spec") from error
    except BanditloopError as error:
        raise SpecError(error.message, "spec") from error
    if not isinstance(raw, dict):
        raise SpecError("it is no spec: a spec has fields, as name and learner", "spec")
    return with_model(raw, lambda given: str(Path(path).parent / given))


def _spec_of(policy: PolicySpec, raw: dict[str, Any]) -> PolicySpec:
    """Return the policy's spec with a shadow's model.

    Raises:
        SpecError: no such shadow can be; ``target`` is the field.
    """
    known = PolicySpec.__struct_fields__
    if unknown := [field for field in raw if field not in known]:
        raise SpecError(f"unknown field: {choices(unknown[0], known)}", unknown[0])
    kind = raw.get("kind", "blend")
    if kind == "mixture" and policy.kind != "mixture":
        raise SpecError(
            f"a shadow of kind {kind} cannot be followed on the log of a {policy.kind}: make it a"
            " blend, or evaluate it by banditloop replay",
            "kind",
        )

    # All but the model is the policy's; what else the shadow says has to be the same.
    whole: dict[str, Any] = msgspec.to_builtins(policy)
    base = {field: whole[field] for field in whole if field not in (*OWN, *NOT_ASKED)}
    own = {field: raw[field] for field in raw if field in OWN}
    spec = spec_of({**base, **own})
    for field, value in raw.items():
        if field not in (*OWN, *NOT_ASKED) and not _is_same(policy, field, value):
            raise SpecError(
                f"it is not as {policy.name} has it, and a shadow chooses from what {policy.name}"
                f" chooses from, under its rules and for its rewards: leave {field} out, or"
                " evaluate the policy by banditloop replay",
                field,
            )
    return spec


def _is_same(policy: PolicySpec, field: str, said: Any) -> bool:
    """Return whether a field of the policy is what a shadow says of it."""
    whole = msgspec.to_builtins(policy)
    other = as_type({**whole, field: said}, PolicySpec)
    mine, its = (
        getattr(with_paths(each, lambda path: Path(path).name), field) for each in (policy, other)
    )
    return bool(mine == its)
