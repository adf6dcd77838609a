"""What sources are fitted with, where it differs from what was measured for all: by source, field.

A search finds such values, or a person writes them; an artifact tells of them, so that its sources
are trained anew with the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from bandits.errors import ArtifactError, InvalidFieldError
from policies.artifacts.source_artifact import Artifact
from policies.typed_yaml import as_type, choices

if TYPE_CHECKING:
    from policies.training.fits import TrainConfig

FITTED_WITH: Final = "fitted_with"
"""The name under which an artifact tells of them."""

Changes = Mapping[str, Mapping[str, Any]]

# What the numbers of a config may be. Whoever writes another is told of it by ``with_changes``, not
# by whatever fails first in a fit.
Size = Annotated[int, msgspec.Meta(ge=1, le=65_536)]
"""A number that memory is taken for: the length of a vector, a layer's width, a step's rows."""
Count = Annotated[int, msgspec.Meta(ge=1, le=10**12)]
"""A number of what is only counted."""
CountOrNone = Annotated[int, msgspec.Meta(ge=0, le=10**12)]
Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e30)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=1e30)]


def with_changes(config: "TrainConfig", changes: Changes) -> "TrainConfig":
    """Return hyperparameters with some of them changed.

    Args:
        config: of all sources.
        changes: by source and field.

    Raises:
        ArtifactError: there is no such source or field, or it cannot have the value.
    """
    sources = [field.name for field in fields(config)]
    for source, values in changes.items():
        if source not in sources:
            raise ArtifactError(
                f"{source} has nothing that it is fitted with: {choices(source, sources)}", source
            )
        held = getattr(config, source)
        known = [field.name for field in fields(held)]
        for name in values:
            if name not in known:
                raise ArtifactError(
                    f"{source} is not fitted with {name}: {choices(name, known)}",
                    f"{source}.{name}",
                )

        # A whole number will do where any number does.
        try:
            changed = as_type({**asdict(held), **values}, type(held))
        except InvalidFieldError as error:
            raise ArtifactError(
                f"{source}.{error.target}: {error.message}", f"{source}.{error.target}"
            ) from error
        config = replace(config, **{source: changed})
    return config


def changes_of(config: "TrainConfig", sources: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what differs from the usual hyperparameters.

    Args:
        config: of all sources.
        sources: whose are looked at.
    """
    from policies.training.fits import TrainConfig  # noqa: PLC0415 - torch

    found = {}
    for name in (field.name for field in fields(config) if field.name in sources):
        mine, usual = asdict(getattr(config, name)), asdict(getattr(TrainConfig(), name))
        if differing := {key: mine[key] for key in mine if mine[key] != usual[key]}:
            found[name] = differing
    return found


def changes_told(artifact: Artifact | None) -> dict[str, dict[str, Any]]:
    """Return what an artifact says that its sources were fitted with; none if it says nothing."""
    said = "" if artifact is None else artifact.created_with.get(FITTED_WITH, "")
    return msgspec.json.decode(said, type=dict[str, dict[str, Any]]) if said else {}
