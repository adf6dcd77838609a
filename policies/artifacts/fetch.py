"""Source artifacts in a folder, or at a URI that pyarrow opens, fetched once per machine."""

import contextlib
import shutil
import uuid
from pathlib import Path

from bandits.errors import ArchiveError, ArtifactError
from policies.artifacts.source_artifact import CURRENT, MANIFEST, Artifact, Needs, load

CACHE = Path.home() / ".cache" / "banditloop" / "artifacts"


def pinned(where: str) -> str:
    """Return the folder of the version that is in use now; what it holds never changes.

    Raises:
        ArtifactError: there is no artifact, or it cannot be reached.
    """
    if "://" not in where:
        folder = Path(where)
        return where if (folder / MANIFEST).is_file() else str(folder / load(folder).version)

    # pyarrow takes 30 MB, which a replica can do without.
    from policies.storage import Storage, join_name  # noqa: PLC0415

    try:
        storage = Storage(where, "")
        if storage.exists(MANIFEST):
            return where
        with storage.open(CURRENT) as file:
            return join_name(where, file.read().decode().strip())
    except (OSError, ArchiveError) as error:
        raise ArtifactError(
            f"artifact: none can be read at that URI ({error}): put there what banditloop train"
            " has written",
            "artifact",
        ) from error


def load_artifact(where: str, *, needs: Needs = "all") -> Artifact:
    """Return the artifact at a path or URI: that of a version's folder, or a root's current one.

    Args:
        where: the path or URI.
        needs: see ``load``.

    Raises:
        ArtifactError: as ``load``, or it cannot be reached.
    """
    if "://" in where:
        where = str(_fetched(pinned(where)))
    folder = Path(where)
    if (folder / MANIFEST).is_file():
        return load(folder.parent, folder.name, needs=needs)
    return load(folder, needs=needs)


def load_version(where: str, version: str, *, needs: Needs = "all") -> Artifact:
    """Return a version of the artifact at a path or URI, which is that of the root or of a version.

    Args:
        where: the path or URI.
        version: which one.
        needs: see ``load``.

    Raises:
        ArtifactError: as ``load``, or it cannot be reached.
    """
    if Path(version).name != version or version in {"", ".", ".."}:
        raise ArtifactError(f"{version[:40]!r} is no version of an artifact", "artifact")
    if "://" not in where:
        folder = Path(where)
        is_version = folder.name == version or (folder / MANIFEST).is_file()
        return load(folder.parent if is_version else folder, version, needs=needs)

    # What was fetched before needs no store that answers.
    folder = CACHE / version
    if not folder.is_dir():
        folder = _fetched(_version_uri(where, version))
    return load(folder.parent, folder.name, needs=needs)


def _version_uri(where: str, version: str) -> str:
    from policies.storage import Storage, join_name, split_name  # noqa: PLC0415

    root, name = split_name(where)
    if name == version:
        return where
    try:
        return join_name(root if Storage(where, "").exists(MANIFEST) else where, version)
    except (OSError, ArchiveError) as error:
        raise ArtifactError(f"the artifact cannot be fetched: {error}", "artifact") from error


def _fetched(uri: str) -> Path:
    """Return the local copy of one version.

    Its files are checked against their digests when they are loaded.
    """
    from policies.storage import Storage, split_name  # noqa: PLC0415

    final = CACHE / split_name(uri)[1]
    if final.is_dir():
        return final

    # Another process sees the whole copy or none.
    scratch = CACHE / f".{uuid.uuid4().hex}"
    scratch.mkdir(parents=True)
    try:
        storage = Storage(uri, "")
        for info in storage.list():
            with (
                storage.open(info.base_name) as source,
                (scratch / info.base_name).open("xb") as sink,
            ):
                shutil.copyfileobj(source, sink, 1 << 20)
        if not (scratch / MANIFEST).is_file():
            raise ArtifactError(f"there is no version {final.name} at that URI", "artifact")
        with contextlib.suppress(OSError):  # if another process was faster, its copy is as good
            scratch.rename(final)
    except (OSError, ArchiveError) as error:
        raise ArtifactError(f"the artifact cannot be fetched: {error}", "artifact") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return final
