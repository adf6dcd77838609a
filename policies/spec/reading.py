"""A spec as it is read: from a blob of the log, or from YAML.

Strict: an unknown key is an error that names it.
"""

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from bandits.errors import InvalidFieldError, SpecError
from bandits.log.codec import MALFORMED
from policies.spec.policy import PolicySpec, with_model, with_paths
from policies.typed_yaml import as_type, parse_yaml


def decode_spec(data: bytes) -> PolicySpec:
    """Return the spec in a blob.

    Raises:
        SpecError: it is not one.
    """
    try:
        return msgspec.json.decode(data, type=PolicySpec)
    except MALFORMED as error:
        raise SpecError(*_readable(error)) from error


def load_spec(path: Path) -> PolicySpec:
    """Read a spec from a YAML file; its paths become absolute.

    Raises:
        SpecError: no such file, not YAML, unknown key, wrong type, or a combination that cannot
            work; in one line.
    """
    try:
        raw = parse_yaml(path.read_bytes())
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}", "spec") from error
    except InvalidFieldError as error:
        raise SpecError(f"{path}: {error.message}", "spec") from error
    return read_spec(raw, str(path), path.parent)


def spec_of(raw: Any) -> PolicySpec:
    """Return the spec that YAML has been parsed to, its paths as they stand there.

    Raises:
        SpecError: as ``load_spec``; ``target`` is the field.
    """
    from policies.spec.checks import admit  # noqa: PLC0415 - whoever decodes asks none

    try:
        _demand_finite(raw)
        return admit(as_type(raw, PolicySpec))
    except InvalidFieldError as error:
        raise SpecError(error.message, error.target or "spec") from error
    except RecursionError as error:
        raise SpecError("an alias refers to itself", "spec") from error


def read_spec(raw: Any, where: str, folder: Path) -> PolicySpec:
    """Return the spec that YAML has been parsed to; its paths become absolute.

    Args:
        raw: what the YAML holds.
        where: what an error begins with.
        folder: the folder that paths are relative to.

    Raises:
        SpecError: as ``load_spec``; it begins with ``where``.
    """
    try:
        spec = spec_of(raw)
    except SpecError as error:
        raise SpecError(f"{where}: {error.target}: {error.message}", error.target) from error
    return with_shadows(with_paths(spec, _resolved(folder)))


def with_shadows(spec: PolicySpec) -> PolicySpec:
    """Return the spec with what the files of its shadows say, as far as they can be read.

    Whoever opens the shadows says what is wrong with the others.
    """
    if spec.shadow is msgspec.UNSET:
        return spec
    found: list[str | dict[str, Any]] = []
    for said in spec.shadow:
        raw: Any = said
        if isinstance(said, str):
            with contextlib.suppress(OSError, InvalidFieldError):
                raw = parse_yaml(Path(said).read_bytes())
            if isinstance(raw, dict):
                raw = with_model(raw, _resolved(Path(said).parent))
        found.append(raw if isinstance(raw, dict) else said)
    return msgspec.structs.replace(spec, shadow=found)


def _resolved(folder: Path) -> Callable[[str], str]:
    """Return what makes a path absolute that is relative to a folder; a URL stays what it is."""
    return lambda given: given if "://" in given else str((folder / given).resolve())


def _demand_finite(raw: Any, at: str = "") -> None:
    """Refuse NaN and infinity anywhere; ``at`` is the path of the field."""
    if isinstance(raw, float) and not math.isfinite(raw):
        raise SpecError("not a finite number", at.removeprefix("."))
    if isinstance(raw, dict):
        for key, value in raw.items():
            _demand_finite(value, f"{at}.{key}")
    elif isinstance(raw, list):
        for i, value in enumerate(raw):
            _demand_finite(value, f"{at}[{i}]")


def _readable(error: Exception) -> tuple[str, str]:
    """Return what an error of msgspec says, and the path of the field it is about."""
    message, _, where = str(error).partition(" - at `")
    return message, where.rstrip("`").removeprefix("$").removeprefix(".") or "spec"
