"""A spec that does what a loop of Azure AI Personalizer did, and what of it there is not here."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from bandits.errors import InvalidFieldError, SpecError
from policies.personalizer.arguments import (
    DEFAULT_ARGUMENTS,
    read_policy_arguments,
    with_arguments,
)
from policies.personalizer.configuration import WantedConfiguration, with_configuration
from policies.spec import PolicySpec, spec_of
from simulator.logs.exported.spaces import crossed_here

if TYPE_CHECKING:
    from simulator.logs.exported.weights import CarriedWeights

MODEL_IN_ZIP = "model.vw"
NOT_CARRIED = "cannot be carried over"
_IMPLIED = ("--cb_adf ", "--csoaa_ldf multiline ", "--csoaa_rank ")
"""What Vowpal Wabbit adds to the arguments that it was given."""
_REFUSED = {
    "isAutoOptimizationEnabled": "no other policy takes over by itself: banditloop replay --search"
    " finds a better one, and says how sure that is",
    "logMirrorEnabled": "the log is archived as Parquet: banditloop serve --archive URI",
}
_SAID = {
    "modelExportFrequency": "a model serves about a second after it was learned",
    "modelRetrainDays": "kept, and told again: nothing is retrained where settings change, since"
    " the model goes on",
    "logRetentionDays": "kept, and told again: nothing is deleted by itself (banditloop snapshots"
    " root)",
}


class Exports(NamedTuple):
    """What a loop has exported.

    Attributes:
        service: its configuration, as JSON.
        arguments: those of its policy; None: nobody says.
        model: its model; None: none was given.
        made_with: the arguments that the model says; None: it says none.
    """

    service: dict[str, Any]
    arguments: str | None
    model: bytes | None = None
    made_with: str | None = None


class Carried(NamedTuple):
    """What has become of one setting."""

    setting: str
    there: str
    here: str


class Migrated(NamedTuple):
    """A loop as a policy.

    Attributes:
        spec: the policy.
        written: what of the spec is written into its file.
        carried: what has become of each setting.
    """

    spec: PolicySpec
    written: dict[str, Any]
    carried: list[Carried]


def read_exports(configs: Sequence[Path], model: Path | None) -> Exports:
    """Read what a loop has exported.

    Args:
        configs: files of JSON: of the service, of the policy, or of both.
        model: a model.

    Raises:
        SpecError: a file is none of these; it names the file.
    """
    service: dict[str, Any] = {}
    arguments: str | None = None
    for path in configs:
        try:
            raw = msgspec.json.decode(path.read_bytes())
        except OSError as error:
            raise SpecError(f"{path}: {error.strerror}", "config") from error
        except msgspec.MsgspecError as error:
            raise SpecError(f"{path}: not JSON: {error}", "config") from error

        known = False
        if isinstance(raw, dict) and isinstance(raw.get("arguments"), str):
            arguments, known = raw["arguments"], True
        if isinstance(raw, dict) and "rewardWaitTime" in raw:
            service, known = raw, True
        if not known:
            raise SpecError(
                f"{path}: neither a service's configuration (rewardWaitTime, …) nor a policy"
                " (name, arguments)",
                "config",
            )

    if not service:
        raise SpecError(
            "none of the files is a service's configuration: give what"
            " /personalizer/configurations/service answers",
            "config",
        )
    if model is None:
        return Exports(service, arguments)
    weights = _model_bytes(model)
    found = arguments_in_model(weights)
    return Exports(service, arguments or found, weights, found)


def migrated(name: str, exports: Exports, letters: Mapping[str, str] | None = None) -> Migrated:
    """Return a policy that does what a loop did.

    Args:
        name: the policy's.
        exports: what the loop has exported.
        letters: the letter here of each namespace's letter there, where logs say so.

    Raises:
        SpecError: a setting cannot be; it names it.
    """
    service = exports.service
    carried: list[Carried] = []
    spec = spec_of({"name": name})

    sent = exports.arguments or DEFAULT_ARGUMENTS
    arguments = crossed_here(sent, letters) if letters else sent
    where = "policy" if exports.arguments else "policy (not exported: the usual one)"
    refused, changes = "", ""
    try:
        spec = with_arguments(spec, arguments)
        changes = "".join(f"; not {each}" for each in read_policy_arguments(arguments).changes)
    except SpecError as error:
        spec = with_arguments(spec, DEFAULT_ARGUMENTS)
        refused = f"{NOT_CARRIED} ({error.message}): "

    for field, why in _REFUSED.items():
        if service.get(field):
            carried.append(Carried(field, "true", f"{NOT_CARRIED}: {why}"))
    wanted = {key: value for key, value in service.items() if key not in _REFUSED}
    try:
        spec = with_configuration(spec, msgspec.convert(wanted, WantedConfiguration))
    except msgspec.ValidationError as error:
        message, _, at = str(error).partition(" - at `$.")
        raise SpecError(f"{at.rstrip('`') or 'the configuration'}: {message}", "config") from error
    except InvalidFieldError as error:
        raise SpecError(f"{error.target}: {error.message}", "config") from error

    carried.insert(0, Carried(where, sent, refused + _learns(spec) + changes))
    carried += _settings(service, spec)
    return Migrated(spec, _written(spec), carried)


def without_weights(why: str) -> Carried:
    """Return what is said of a model whose weights stay behind, and why."""
    return Carried("model", "weights of Vowpal Wabbit", f"{NOT_CARRIED}: {why}")


def with_weights(weights: "CarriedWeights") -> Carried:
    """Return what is said of a model whose weights have been taken over."""
    found = weights.found
    said = (
        f"{found.carried:,} of its {found.weights:,} weights that are not 0, under the names that"
        f" features have here: those of the {found.decisions:,} decisions of --logs that were"
        f" looked at. Scores of these differ by {found.apart:.2g} at most"
    )
    if found.carried < found.weights:
        said += "; the others are of features or crosses that these do not have"
    if weights.unknown:
        said += f"; {weights.unknown:,} further decisions were not understood for certain"
    return Carried("model", "weights of Vowpal Wabbit", said)


def arguments_in_model(model: bytes) -> str | None:
    """Return the arguments that a model of Vowpal Wabbit was made with; None: it says none.

    Its header has them as text.
    """
    head = model[:4096]
    begin = head.find(b"--")
    end = head.find(b"\0", begin)
    if begin < 0 or end < 0:
        return None
    text = f"{head[begin:end].decode('ascii', 'replace')} "
    for implied in _IMPLIED:
        text = text.replace(implied, "")
    words = text.split()
    return " ".join(words) if "--cb_explore_adf" in words else None


def _model_bytes(path: Path) -> bytes:
    """Return the model in a file, or in a signed export, which is a zip of it and two others."""
    try:
        data = path.read_bytes()
        if zipfile.is_zipfile(io.BytesIO(data)):
            with zipfile.ZipFile(io.BytesIO(data)) as parts:
                return parts.read(MODEL_IN_ZIP)
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}", "model") from error
    except (KeyError, zipfile.BadZipFile) as error:
        raise SpecError(f"{path}: a zip without {MODEL_IN_ZIP}", "model") from error
    return data


def _learns(spec: PolicySpec) -> str:
    learner = msgspec.to_builtins(spec.learner)
    exploration = msgspec.to_builtins(spec.exploration)
    said = " ".join(str(value) for value in exploration.values())
    return f"learner {learner['args']}; exploration {said}"


def _settings(service: dict[str, Any], spec: PolicySpec) -> list[Carried]:
    """Return what has become of the settings of a service."""
    join = spec.join
    here = {
        "rewardWaitTime": f"join.window_s: {join.window_s:g}",
        "defaultReward": f"join.default_reward: {join.default_reward:g}",
        "rewardAggregation": f"join.aggregation: {join.aggregation}",
        "explorationPercentage": "exploration, as above",
        "learningMode": f"mode: {spec.mode or 'online'}"
        + (f", learn: {spec.learn}" if spec.is_apprentice else ""),
        **_SAID,
    }
    return [
        Carried(field, str(service[field]), said)
        for field, said in here.items()
        if field in service
    ]


def _written(spec: PolicySpec) -> dict[str, Any]:
    """Return of a spec what its file says: what is not as it is by itself."""
    usual = msgspec.to_builtins(PolicySpec(spec.name))
    fields = msgspec.to_builtins(spec)
    del fields["learner"]["standbys"]
    return {key: value for key, value in fields.items() if key == "name" or usual.get(key) != value}
