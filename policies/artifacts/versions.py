"""Versions of an artifact below one root, a folder or URI, each found by its name."""

import tempfile
from pathlib import Path

from bandits.errors import ArtifactError
from policies.artifacts.source_artifact import MANIFEST, Artifact, write


def root_of(where: str) -> str:
    """Return the root of versions at a path or URI, which may be that of one version itself.

    Raises:
        ArchiveError: pyarrow knows no such address.
        OSError: the store does not answer.
    """
    from policies.storage import Storage, split_name  # noqa: PLC0415 - pyarrow takes 30 MB

    if "://" not in where:
        folder = Path(where)
        return str(folder.parent) if (folder / MANIFEST).is_file() else where
    return split_name(where)[0] if Storage(where, "").exists(MANIFEST) else where


def version_at(root: str, version: str) -> str:
    """Return the path or URI of a version.

    Args:
        root: of all versions.
        version: its name.
    """
    from policies.storage import join_name  # noqa: PLC0415 - pyarrow takes 30 MB

    return join_name(root, version)


def store_version(artifact: Artifact, root: str) -> str:
    """Store an artifact below a root, where every node finds it by its name; return the name.

    What ``current`` points at stays: that is what a first start begins with.

    Args:
        artifact: what training made.
        root: a folder or URI.

    Raises:
        ArtifactError: it cannot be written there.
        OSError, ArchiveError: the store does not answer.
    """
    if "://" not in root:
        return write(artifact, Path(root), current=False)

    from policies.storage import Storage  # noqa: PLC0415 - pyarrow takes 30 MB

    with tempfile.TemporaryDirectory(prefix="banditloop-artifact-") as name:
        version = write(artifact, Path(name), current=False)
        store = Storage(root, "")
        # Whoever finds the manifest finds the rest.
        files = sorted((Path(name) / version).iterdir(), key=lambda file: file.name == MANIFEST)
        for file in files:
            try:
                with file.open("rb") as source:
                    store.put(f"{version}/{file.name}", source)
            except OSError as error:
                raise ArtifactError(f"{file.name} cannot be stored: {error}", "artifact") from error
    return version
