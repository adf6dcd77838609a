"""A search space: a policy spec, and the values that some of its fields may take."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from bandits.errors import InvalidFieldError, SpecError
from policies.spec import PolicySpec, load_spec, read_spec, spec_of
from policies.typed_yaml import as_type, choices, parse_yaml
from simulator.domains import draw_from, read_domain


class SearchSpace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A search space.

    ``spec`` is a file, relative to this one, or the spec itself. ``vary`` has what its fields may
    be, by dotted path, e.g. ``learner.l2``. ``trials`` says how many specs are tried, the unchanged
    one first; one in ``halving`` survives a rung.
    """

    spec: str | dict[str, Any]
    vary: dict[str, dict[str, Any]]
    trials: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 27
    halving: Annotated[int, msgspec.Meta(ge=2, le=10)] = 3


def load_space(path: Path) -> tuple[SearchSpace, PolicySpec]:
    """Load a search space from YAML, and its unchanged spec.

    Raises:
        SpecError: names the field.
    """
    try:
        space = as_type(parse_yaml(path.read_bytes()), SearchSpace)
    except InvalidFieldError as error:
        at = f"{error.target}: " if error.target else ""
        raise SpecError(f"{path}: {at}{error.message}", error.target or "search") from error
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}", "search") from error

    # A fault in a domain is told before anything is drawn.
    for at, domain in space.vary.items():
        read_domain(at, domain)
    if isinstance(space.spec, str):
        return space, load_spec(path.parent / space.spec)
    return space, read_spec(space.spec, f"{path}: spec", path.parent)


def specs_of(space: SearchSpace, base: PolicySpec, *, seed: int) -> list[PolicySpec]:
    """Return the specs to try, without repetition, named NAME-0, NAME-1 and so on.

    Args:
        space: what to draw from.
        base: the unchanged spec, the first of them.
        seed: of the draws.

    Raises:
        SpecError: a path or a value that a spec cannot have.
    """
    rng = np.random.default_rng(seed)
    specs: dict[bytes, PolicySpec] = {}
    for number in range(space.trials):
        raw = msgspec.to_builtins(base)
        if number:
            for at, domain in space.vary.items():
                _put(raw, at, draw_from(read_domain(at, domain), rng))
        spec = spec_of(raw)
        specs.setdefault(spec.encoded, spec)

    # A number is added to what a name may be long.
    stem = base.name[:56]
    return [
        msgspec.structs.replace(spec, name=f"{stem}-{number}")
        for number, spec in enumerate(specs.values())
    ]


def _put(raw: Any, at: str, value: Any) -> None:
    """Set a field of a spec, by its dotted path.

    Raises:
        SpecError: the spec has no such field.
    """
    *parents, last = at.split(".")
    for name in parents:
        if not isinstance(raw.get(name), dict):
            raise SpecError(f"the spec has no {at}: {choices(name, raw)}", f"vary.{at}")
        raw = raw[name]
    if last not in raw:
        raise SpecError(f"the spec has no {at}: {choices(last, raw)}", f"vary.{at}")
    raw[last] = value
