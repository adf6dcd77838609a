"""A source artifact: what training writes and the service loads.

Content-addressed files, no pickle.

    <root>/current                             the version in use, as text
    <root>/<version>/manifest.json             what follows, with every file's SHA-256
                     catalogue.json            [{"id": str, "features": {name: value}}]
                     items.json                [str], the order of the sources' items
                     <source>.safetensors      the arrays of one source
                     prior                     what a fresh model is taught; not in every artifact

No user is in it: what is known of users is a file of its own (``policies.artifacts.profiles``).
Format 1, which had ``histories.safetensors`` in the place of ``items.json``, is still opened.

The version is the first 16 hex digits of the SHA-256 of the manifest (without the version itself),
which names every file's digest: the same training gives the same version, and any changed byte is
noticed.
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from bandits.errors import ArtifactError
from bandits.types import Float32, frozen
from policies.artifacts.histories import HISTORIES, Histories, histories_from
from policies.requests import Item

FORMAT = 2
FORMAT_WITH_USERS = 1
MANIFEST, CURRENT = "manifest.json", "current"
CATALOGUE, ITEMS, PRIOR = "catalogue.json", "items.json", "prior"

Needs = Literal["all", "log", "replica"]
"""The parts of an artifact: whoever writes a log asks no source, and a replica is told of items by
the log."""
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Maps a source's raw scores to its calibrated ones, (raw - mean) / std, in every request."""

    mean: float = 0.0
    std: float = 1.0

    def numbers(self, source: str) -> tuple[np.float32, np.float32]:
        """Return mean and standard deviation.

        Args:
            source: whose scale it is.

        Raises:
            ArtifactError: these are no scale.
        """
        if not (np.isfinite(self.mean) and np.isfinite(self.std) and self.std > 0):
            raise ArtifactError(
                f"source {source!r}: a mean of {self.mean:g} with a standard deviation of"
                f" {self.std:g} is not a scale",
                source,
            )
        return np.float32(self.mean), np.float32(self.std)


@dataclass(frozen=True, slots=True, eq=False)
class TrainedSource:
    """One trained source: ``kind`` says which model reads ``arrays`` and ``config``."""

    kind: str
    arrays: Arrays
    config: Mapping[str, Any] = field(default_factory=dict)
    scale: Calibration = field(default_factory=Calibration)
    metrics: Mapping[str, float] = field(default_factory=dict)

    def array(self, name: str, *shape: int | None) -> NDArray[Any]:
        """Return the array ``name``, which must have this shape (None: any length).

        Raises:
            ArtifactError: there is no such array, or its shape is another.
        """
        if name not in self.arrays:
            raise ArtifactError(f"a source of kind {self.kind} needs an array {name!r}", name)
        array = self.arrays[name]
        if len(array.shape) != len(shape) or any(
            want not in (None, n) for want, n in zip(shape, array.shape, strict=True)
        ):
            raise ArtifactError(
                f"{self.kind}.{name} has shape {list(array.shape)}, expected {list(shape)}", name
            )
        return array

    def floats(self, name: str, *shape: int | None) -> Float32:
        """Return the array ``name`` as compiled loops take it: contiguous, float32.

        Raises:
            ArtifactError: there is no such array, or its shape is another.
        """
        return np.ascontiguousarray(self.array(name, *shape), np.float32)

    def places(self, name: str, length: int | None = None) -> NDArray[Any]:
        """Return an array of whole numbers, int[n].

        Args:
            name: the array's.
            length: n; None: any.

        Raises:
            ArtifactError: there is no such array, or it is something else.
        """
        array = self.array(name, length)
        if array.dtype.kind not in "iu":
            raise ArtifactError(f"{self.kind}.{name} must be integers, not {array.dtype}", name)
        return array

    def whole(self, name: str, usual: int | None = None) -> int:
        """Return a whole number above 0 from the config.

        Args:
            name: of the config's field; an error names it too.
            usual: what it is where the config says nothing; None: it has to.

        Raises:
            ArtifactError: it is not there, or not a whole number above 0.
        """
        value = self.config.get(name, usual)
        known = isinstance(value, int | float) and not isinstance(value, bool)
        if not known or not 0 < value < np.inf or value != int(value):
            raise ArtifactError(
                f"{self.kind}: {name} must be a whole number above 0, not {value!r}", name
            )
        return int(value)


@dataclass(frozen=True, slots=True, eq=False)
class Artifact:
    """Trained sources with the catalogue they rank.

    ``items``: the sources' items, in their order. ``data``: a digest of what they were trained on.
    ``prior``: what a model that has learned nothing is taught, if training made any. ``histories``:
    what an artifact of format 1 says of its users; it is never written.
    """

    catalogue: tuple[dict[str, Any], ...]
    items: tuple[str, ...]
    sources: Mapping[str, TrainedSource]
    data: str = ""
    seed: int = 0
    created_with: Mapping[str, str] = field(default_factory=dict)
    prior: bytes | None = None
    version: str = ""
    histories: Histories | None = None


class _SourceEntry(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    file: str
    sha256: str
    config: dict[str, Any]
    scale: Calibration
    metrics: dict[str, float]


class _Manifest(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    version: str
    created_with: dict[str, str]
    data: str
    seed: int
    files: dict[str, str]
    sources: dict[str, _SourceEntry]

    def digest(self) -> str:
        body = msgspec.structs.replace(self, version="")
        return hashlib.sha256(msgspec.json.encode(body, order="deterministic")).hexdigest()[:16]


class _AnyFormat(msgspec.Struct):
    format: int


def write(artifact: Artifact, root: Path, *, current: bool = True) -> str:
    """Write the artifact, point ``current`` at it, and return its version.

    Readers see the whole new version or the old one, whenever the process dies.

    Args:
        artifact: what training made.
        root: the folder of its versions.
        current: whether ``current`` is to point at it; else it lies there for who knows its name.

    Raises:
        ArtifactError: it holds a number that is not finite, or cannot be written.
    """
    files = {CATALOGUE: _json(artifact.catalogue), ITEMS: _json(artifact.items)}
    if artifact.prior is not None:
        files[PRIOR] = artifact.prior
    digests = {name: _sha256(content) for name, content in files.items()}

    sources = {}
    for name, source in artifact.sources.items():
        file = f"{name}.safetensors"
        _check_finite(file, source.arrays)
        files[file] = save_tensors(_plain(source.arrays))
        sources[name] = _SourceEntry(
            source.kind,
            file,
            _sha256(files[file]),
            dict(source.config),
            source.scale,
            # As they are read: an integer would make another digest.
            {name: float(value) for name, value in source.metrics.items()},
        )

    # The manifest names every file's digest, and the version is the manifest's.
    manifest = _Manifest(
        FORMAT, "", dict(artifact.created_with), artifact.data, artifact.seed, digests, sources
    )
    manifest.version = manifest.digest()
    files[MANIFEST] = msgspec.json.format(_json(manifest))

    try:
        _publish(root, manifest.version, files, current=current)
    except OSError as error:
        raise ArtifactError(
            f"the artifact cannot be written below {root}: {error}", "root"
        ) from error
    return manifest.version


def load(root: Path, version: str | None = None, *, needs: Needs = "all") -> Artifact:
    """Return an artifact, with every digest verified.

    Args:
        root: the folder of its versions.
        version: which; the current one by default.
        needs: which parts; the rest is empty.

    Raises:
        ArtifactError: it is missing, damaged, of another format version, or holds what it may not.
    """
    if version is None:
        try:
            version = _read(root / CURRENT).decode("utf-8", "replace").strip()
        except ArtifactError as error:
            raise ArtifactError(
                f"artifact: {error}: banditloop train --out {root} makes one", "artifact"
            ) from error
    if not version or Path(version).name != version:
        raise ArtifactError(f"{root / CURRENT} does not name a version", CURRENT)

    folder = root / version
    manifest = _load_manifest(folder)
    trained = {
        name: TrainedSource(
            entry.kind,
            _tensors(folder, entry.file, entry.sha256),
            entry.config,
            entry.scale,
            entry.metrics,
        )
        for name, entry in (() if needs == "log" else manifest.sources.items())
    }

    items, histories = _load_items(folder, manifest)
    prior = manifest.files.get(PRIOR)
    return Artifact(
        catalogue=(
            () if needs == "replica" else _load_catalogue(folder, manifest.files[CATALOGUE])
        ),
        items=items,
        sources=trained,
        data=manifest.data,
        seed=manifest.seed,
        created_with=manifest.created_with,
        prior=None if prior is None else _read(folder / PRIOR, prior),
        version=version,
        histories=histories,
    )


def _load_manifest(folder: Path) -> _Manifest:
    raw = _read(folder / MANIFEST)
    try:
        written = msgspec.json.decode(raw, type=_AnyFormat).format
        if written not in {FORMAT, FORMAT_WITH_USERS}:
            raise ArtifactError(
                f"{folder} has format {written}; this version of banditloop reads"
                f" {FORMAT_WITH_USERS} and {FORMAT}",
                MANIFEST,
            )
        manifest = msgspec.json.decode(raw, type=_Manifest)
    except msgspec.DecodeError as error:
        raise ArtifactError(f"{folder / MANIFEST} is damaged: {error}", MANIFEST) from error

    if not manifest.digest() == manifest.version == folder.name:
        raise ArtifactError(
            f"{folder / MANIFEST} is not the one this version was written with", MANIFEST
        )
    needed = {CATALOGUE, HISTORIES if written == FORMAT_WITH_USERS else ITEMS}
    if set(manifest.files) - {PRIOR} != needed:
        raise ArtifactError(
            f"{folder / MANIFEST} must list {' and '.join(sorted(needed))}", MANIFEST
        )
    return manifest


def _load_items(folder: Path, manifest: _Manifest) -> tuple[tuple[str, ...], Histories | None]:
    """Return the sources' items, and what format 1 has in their place."""
    if manifest.format == FORMAT_WITH_USERS:
        histories = histories_from(_tensors(folder, HISTORIES, manifest.files[HISTORIES]))
        return histories.items, histories

    raw = _read(folder / ITEMS, manifest.files[ITEMS])
    try:
        items = msgspec.json.decode(raw, type=tuple[str, ...])
    except msgspec.DecodeError as error:
        raise ArtifactError(f"{ITEMS} is not a JSON list of strings: {error}", ITEMS) from error
    if len(set(items)) != len(items):
        raise ArtifactError(f"{ITEMS}: an item id occurs twice", ITEMS)
    return items, None


def _load_catalogue(folder: Path, sha256: str) -> tuple[dict[str, Any], ...]:
    raw = _read(folder / CATALOGUE, sha256)
    try:
        listed = msgspec.json.decode(raw, type=list[Item])
    except msgspec.DecodeError as error:
        raise ArtifactError(f"{CATALOGUE}: {error}", CATALOGUE) from error
    if len({item.id for item in listed}) != len(listed):
        raise ArtifactError(f"{CATALOGUE}: an item id occurs twice", CATALOGUE)
    return tuple(msgspec.json.decode(raw))


def _tensors(folder: Path, file: str, sha256: str) -> Arrays:
    if Path(file).name != file:
        raise ArtifactError(f"{MANIFEST} names a file outside its directory: {file!r}", MANIFEST)
    try:
        arrays = load_tensors(_read(folder / file, sha256))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{folder / file} is not a safetensors file: {error}", file) from error
    _check_finite(file, arrays)
    return {name: frozen(array) for name, array in arrays.items()}


def _read(path: Path, sha256: str | None = None) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}", path.name) from error
    if sha256 is not None and _sha256(content) != sha256:
        raise ArtifactError(f"{path} is damaged: its SHA-256 is not the manifest's", path.name)
    return content


def _check_finite(file: str, arrays: Arrays) -> None:
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ArtifactError(f"{file}: {name} holds numbers that are not finite", file)


def _publish(root: Path, version: str, files: Mapping[str, bytes], *, current: bool) -> None:
    root.mkdir(parents=True, exist_ok=True)

    # The version appears with all of its files, or not at all.
    if any(not _holds(root / version / name, content) for name, content in files.items()):
        scratch = root / f".{uuid.uuid4().hex}"
        scratch.mkdir()
        try:
            for name, content in files.items():
                _write(scratch / name, content)
            _sync(scratch)
            # What is there is a damaged copy: nobody can have loaded it.
            shutil.rmtree(root / version, ignore_errors=True)
            scratch.rename(root / version)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        _sync(root)
    if not current:
        return

    pointer = root / f".{uuid.uuid4().hex}"
    _write(pointer, f"{version}\n".encode())
    pointer.replace(root / CURRENT)
    _sync(root)


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _json(value: object) -> bytes:
    return msgspec.json.encode(value, order="deterministic")


def _plain(arrays: Arrays) -> dict[str, NDArray[Any]]:
    # safetensors writes an array's buffer as it lies in memory, whatever its strides say.
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
