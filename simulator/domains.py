"""What a field may be in a search: one of some values, or a number between two."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import numpy as np

from bandits.errors import InvalidFieldError, SpecError
from policies.typed_yaml import as_type, choices


class ChoiceDomain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of several values, each as likely."""

    choice: Annotated[list[Any], msgspec.Meta(min_length=1)]


class UniformDomain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number between two, each as likely."""

    uniform: tuple[float, float]


class LogUniformDomain(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number between two positive ones, each order of magnitude as likely."""

    loguniform: tuple[Annotated[float, msgspec.Meta(gt=0)], Annotated[float, msgspec.Meta(gt=0)]]


Domain = ChoiceDomain | UniformDomain | LogUniformDomain
"""The values that a field may take in a search."""

DOMAINS: Mapping[str, type[Domain]] = {
    "choice": ChoiceDomain,
    "uniform": UniformDomain,
    "loguniform": LogUniformDomain,
}


def read_domain(at: str, raw: dict[str, Any]) -> Domain:
    """Return the domain that a field may vary in.

    Args:
        at: the field's name, or its dotted path.
        raw: the domain, as YAML has it.

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


def draw_from(domain: Domain, rng: np.random.Generator) -> Any:
    """Return a value of a domain.

    Args:
        domain: the values.
        rng: chance, which is drawn from once.
    """
    if isinstance(domain, ChoiceDomain):
        return domain.choice[int(rng.integers(len(domain.choice)))]
    if isinstance(domain, UniformDomain):
        return float(rng.uniform(*domain.uniform))
    return float(np.exp(rng.uniform(*np.log(domain.loguniform))))
