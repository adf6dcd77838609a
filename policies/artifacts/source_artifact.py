"""A source artifact: what training writes and the service loads.

Content-addressed files, no pickle.

    <root>/current                             the version in use, as text
    <root>/<version>/manifest.json             what follows, with every file's SHA-256
                     catalogue.json            [{"id": str, "features": {name: value}}]
                     histories.safetensors     item and user ids, and who interacted with what
                     <source>.safetensors      the arrays of one source

The version is the first 16 hex digits of the SHA-256 of the manifest (without the version itself),
which names every file's digest: the same training gives the same version, and any changed byte is
noticed.
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from bandits.errors import ArtifactError
from bandits.types import Float32, frozen
from policies.requests import Item

FORMAT = 1
CATALOGUE, HISTORIES, MANIFEST, CURRENT = (
    "catalogue.json",
    "histories.safetensors",
    "manifest.json",
    "current",
)

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Histories:
    """Who interacted with what: CSR rows per known user, over the items of the sources.

    ``starts``: int64[users + 1]; ``indices``: int32[n], into ``items``, ascending per user;
    ``weights``: float32[n], how strongly each interaction speaks for the item (1 = as much as one
    sent with a request, which has no rating).
    """

    items: tuple[str, ...]
    users: tuple[str, ...]
    starts: NDArray[np.int64]
    indices: NDArray[np.int32]
    weights: Float32

    def __post_init__(self) -> None:
        shapes = self.starts.shape, self.indices.shape, self.weights.shape
        if shapes != ((len(self.users) + 1,), (self.indices.size,), (self.indices.size,)) or (
            self.starts[0] != 0
            or self.starts[-1] != self.indices.size
            or np.any(np.diff(self.starts) < 0)
        ):
            raise ArtifactError(
                f"{HISTORIES}: rows do not fit: {len(self.users)} users, shapes {shapes}", HISTORIES
            )
        if self.indices.size and not 0 <= self.indices.min() <= self.indices.max() < len(
            self.items
        ):
            raise ArtifactError(
                f"{HISTORIES}: an index is outside the {len(self.items)} items", HISTORIES
            )
        if len(set(self.items)) != len(self.items) or len(set(self.users)) != len(self.users):
            raise ArtifactError(f"{HISTORIES}: an item or user id occurs twice", HISTORIES)

    @cached_property
    def item_index(self) -> dict[str, int]:
        """The place of each item id."""
        return {item: i for i, item in enumerate(self.items)}

    @cached_property
    def user_index(self) -> dict[str, int]:
        """The row of each user id."""
        return {user: i for i, user in enumerate(self.users)}

    def row(self, user: int) -> tuple[NDArray[np.int32], Float32]:
        """Return the item indices and weights of one row."""
        part = slice(int(self.starts[user]), int(self.starts[user + 1]))
        return self.indices[part], self.weights[part]

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return all of it as arrays; ids are the bytes of a JSON list."""
        return {
            "items": _to_bytes(self.items),
            "users": _to_bytes(self.users),
            "starts": self.starts,
            "indices": self.indices,
            "weights": self.weights,
        }


@dataclass(frozen=True, slots=True)
class Calibration:
    """Maps a source's raw scores to its calibrated ones, (raw - mean) / std, in every request."""

    mean: float = 0.0
    std: float = 1.0


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


@dataclass(frozen=True, slots=True, eq=False)
class Artifact:
    """Trained sources with the catalogue they rank.

    ``data`` is a digest of what they were trained on.
    """

    catalogue: tuple[dict[str, Any], ...]
    histories: Histories
    sources: Mapping[str, TrainedSource]
    data: str = ""
    seed: int = 0
    created_with: Mapping[str, str] = field(default_factory=dict)
    version: str = ""


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


def write(artifact: Artifact, root: Path) -> str:
    """Write the artifact, point ``current`` at it, and return its version.

    Readers see the whole new version or the old one, whenever the process dies.

    Args:
        artifact: what training made.
        root: the folder of its versions.

    Raises:
        ArtifactError: it holds a number that is not finite, or cannot be written.
    """
    files = {
        CATALOGUE: _json(artifact.catalogue),
        HISTORIES: save_tensors(_plain(artifact.histories.tensors())),
    }

    sources = {}
    for name, source in artifact.sources.items():
        file = f"{name}.safetensors"
        _check_finite(file, source.arrays)
        files[file] = save_tensors(_plain(source.arrays))
        digest = hashlib.sha256(files[file]).hexdigest()
        sources[name] = _SourceEntry(
            source.kind, file, digest, dict(source.config), source.scale, dict(source.metrics)
        )

    # The manifest names every file's digest, and the version is the manifest's.
    digests = {name: hashlib.sha256(files[name]).hexdigest() for name in (CATALOGUE, HISTORIES)}
    manifest = _Manifest(
        FORMAT, "", dict(artifact.created_with), artifact.data, artifact.seed, digests, sources
    )
    manifest.version = manifest.digest()
    files[MANIFEST] = msgspec.json.format(_json(manifest))

    try:
        _publish(root, manifest.version, files)
    except OSError as error:
        raise ArtifactError(
            f"the artifact cannot be written below {root}: {error}", "root"
        ) from error
    return manifest.version


def load(root: Path, version: str | None = None) -> Artifact:
    """Return an artifact, with every digest verified.

    Args:
        root: the folder of its versions.
        version: which; the current one by default.

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
    sources = {
        name: TrainedSource(
            entry.kind,
            _tensors(folder, entry.file, entry.sha256),
            entry.config,
            entry.scale,
            entry.metrics,
        )
        for name, entry in manifest.sources.items()
    }
    return Artifact(
        catalogue=_load_catalogue(folder, manifest.files[CATALOGUE]),
        histories=_load_histories(_tensors(folder, HISTORIES, manifest.files[HISTORIES])),
        sources=sources,
        data=manifest.data,
        seed=manifest.seed,
        created_with=manifest.created_with,
        version=version,
    )


def _load_manifest(folder: Path) -> _Manifest:
    raw = _read(folder / MANIFEST)
    try:
        written = msgspec.json.decode(raw, type=_AnyFormat).format
        if written != FORMAT:
            raise ArtifactError(
                f"{folder} has format {written}; this version of banditloop reads {FORMAT}",
                MANIFEST,
            )
        manifest = msgspec.json.decode(raw, type=_Manifest)
    except msgspec.DecodeError as error:
        raise ArtifactError(f"{folder / MANIFEST} is damaged: {error}", MANIFEST) from error

    if not manifest.digest() == manifest.version == folder.name:
        raise ArtifactError(
            f"{folder / MANIFEST} is not the one this version was written with", MANIFEST
        )
    if set(manifest.files) != {CATALOGUE, HISTORIES}:
        raise ArtifactError(f"{folder / MANIFEST} must list {CATALOGUE} and {HISTORIES}", MANIFEST)
    return manifest


def _load_catalogue(folder: Path, sha256: str) -> tuple[dict[str, Any], ...]:
    raw = _read(folder / CATALOGUE, sha256)
    try:
        listed = msgspec.json.decode(raw, type=list[Item])
    except msgspec.DecodeError as error:
        raise ArtifactError(f"{CATALOGUE}: {error}", CATALOGUE) from error
    if len({item.id for item in listed}) != len(listed):
        raise ArtifactError(f"{CATALOGUE}: an item id occurs twice", CATALOGUE)
    return tuple(msgspec.json.decode(raw))


def _load_histories(arrays: Arrays) -> Histories:
    expected = {
        "items": "uint8",
        "users": "uint8",
        "starts": "int64",
        "indices": "int32",
        "weights": "float32",
    }
    vectors = {name: str(array.dtype) for name, array in arrays.items() if array.ndim == 1}
    if vectors != expected:
        raise ArtifactError(f"{HISTORIES} must hold vectors {expected}, not {vectors}", HISTORIES)

    items, users = (_to_strings(arrays[name]) for name in ("items", "users"))
    return Histories(items, users, arrays["starts"], arrays["indices"], arrays["weights"])


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
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ArtifactError(f"{path} is damaged: its SHA-256 is not the manifest's", path.name)
    return content


def _check_finite(file: str, arrays: Arrays) -> None:
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ArtifactError(f"{file}: {name} holds numbers that are not finite", file)


def _publish(root: Path, version: str, files: Mapping[str, bytes]) -> None:
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


def _to_bytes(strings: Sequence[str]) -> NDArray[np.uint8]:
    return np.frombuffer(_json(strings), dtype=np.uint8)


def _to_strings(array: NDArray[Any]) -> tuple[str, ...]:
    try:
        return msgspec.json.decode(array.tobytes(), type=tuple[str, ...])
    except msgspec.DecodeError as error:
        raise ArtifactError(
            f"{HISTORIES}: ids are not a JSON list of strings: {error}", HISTORIES
        ) from error
