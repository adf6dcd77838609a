"""What to search: a policy spec, and the values that some of its fields may take."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from bandits.errors import InvalidFieldError, SpecError
from policies.spec import PolicySpec, load_spec, read_spec, spec_of
from policies.typed_yaml import as_type, choices, parse_yaml


class ChoiceDomain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of some values, each as likely."""

    choice: Annotated[list[Any], msgspec.Meta(min_length=1)]


class UniformDomain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number between two, each as likely."""

    uniform: tuple[float, float]


class LogUniformDomain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number between two positive ones, each order of magnitude as likely."""

    loguniform: tuple[Annotated[float, msgspec.Meta(gt=0)], Annotated[float, msgspec.Meta(gt=0)]]


class SearchSpace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``spec``: a file, relative to this one, or the spec itself.

    ``vary``: by dotted path, e.g. ``learner.l2``.

    ``trials``: how many specs are tried, the unchanged one first. ``halving``: one of so many
    survives a rung.
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
    """A search space from YAML, and its unchanged spec.

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
    for at, domain in space.vary.items():
        _domain(at, domain)
    if isinstance(space.spec, str):
        return space, load_spec(path.parent / space.spec)
    return space, read_spec(space.spec, f"{path}: spec", path.parent)


def specs_of(space: SearchSpace, base: PolicySpec, *, seed: int) -> list[PolicySpec]:
    """The specs to try, without repetition: the unchanged one, and draws.

    Named NAME-0, NAME-1 and so on.

    Raises:
        SpecError: a path or a value that a spec cannot have.
    """
    rng = np.random.default_rng(seed)
    found: dict[bytes, PolicySpec] = {}
    for number in range(space.trials):
        raw = msgspec.to_builtins(base)
        if number:
            for at, domain in space.vary.items():
                _put(raw, at, _draw(_domain(at, domain), rng))
        spec = spec_of(raw)
        found.setdefault(spec.encoded, spec)
    stem = base.name[:56]
    return [
        msgspec.structs.replace(spec, name=f"{stem}-{number}")
        for number, spec in enumerate(found.values())
    ]


def _domain(at: str, raw: dict[str, Any]) -> ChoiceDomain | UniformDomain | LogUniformDomain:
    kind = next((DOMAINS[name] for name in raw if name in DOMAINS), None)
    if kind is None:
        given = ", ".join(map(str, raw))
        raise SpecError(
            f"{at} varies by one of these, not by {given!r}: {choices(given, DOMAINS)}",
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
    *parents, last = at.split(".")
    for name in parents:
        if not isinstance(raw.get(name), dict):
            raise SpecError(f"the spec has no {at}: {choices(name, raw)}", f"vary.{at}")
        raw = raw[name]
    if last not in raw:
        raise SpecError(f"the spec has no {at}: {choices(last, raw)}", f"vary.{at}")
    raw[last] = value
