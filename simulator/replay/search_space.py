"""A search space: a policy spec, and the values that some of its fields may take."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from bandits.errors import InvalidFieldError, SpecError
from policies.spec import PolicySpec, load_spec, read_spec, spec_of
from policies.typed_yaml import as_type, choices, parse_yaml


class ChoiceDomain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of several values, each as likely."""

    choice: Annotated[list[Any], msgspec.Meta(min_length=1)]


class UniformDomain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number between two, each as likely."""

    uniform: tuple[float, float]


class LogUniformDomain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number between two positive ones, each order of magnitude as likely."""

    loguniform: tuple[Annotated[float, msgspec.Meta(gt=0)], Annotated[float, msgspec.Meta(gt=0)]]


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


DOMAINS: dict[str, type[ChoiceDomain | UniformDomain | LogUniformDomain]] = {
    "choice": ChoiceDomain,
    "uniform": UniformDomain,
    "loguniform": LogUniformDomain,
}


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
        _domain(at, domain)
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
                _put(raw, at, _draw(_domain(at, domain), rng))
        spec = spec_of(raw)
        specs.setdefault(spec.encoded, spec)

    # A number is added to what a name may be long.
    stem = base.name[:56]
    return [
        msgspec.structs.replace(spec, name=f"{stem}-{number}")
        for number, spec in enumerate(specs.values())
    ]


def _domain(at: str, raw: dict[str, Any]) -> ChoiceDomain | UniformDomain | LogUniformDomain:
    """Return the domain that a field may vary in.

    Raises:
        SpecError: there is no such domain, or it is empty; names the field.
    """
    kind = next((DOMAINS[name] for name in raw if name in DOMAINS), None)
    if kind is None:
        names = ", ".join(map(str, raw))
        raise SpecError(
            f"{at} varies by one of these, not by {names!r}: {choices(names, DOMAINS)}",
            f"vary.{at}",
        )

    try:
        domain = as_type(raw, kind)
    except InvalidFieldError as error:
        where = ".".join(filter(None, ("vary", at, error.target)))
        raise SpecError(f"{where}: {error.message}", where) from error

    if not isinstance(domain, ChoiceDomain):
        low, high = domain.uniform if isinstance(domain, UniformDomain) else domain.loguniform
        if not low < high:
            raise SpecError(
                f"the first number is below the second, not {low:g} and {high:g}", f"vary.{at}"
            )
    return domain


def _draw(domain: ChoiceDomain | UniformDomain | LogUniformDomain, rng: np.random.Generator) -> Any:
    if isinstance(domain, ChoiceDomain):
        return domain.choice[int(rng.integers(len(domain.choice)))]
    if isinstance(domain, UniformDomain):
        return float(rng.uniform(*domain.uniform))
    return float(np.exp(rng.uniform(*np.log(domain.loguniform))))


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
