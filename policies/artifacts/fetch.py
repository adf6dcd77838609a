"""Source artifacts in a folder, or at a URI that pyarrow opens, fetched once per machine."""

import contextlib
import shutil
import uuid
from pathlib import Path

from bandits.errors import ArchiveError, ArtifactError
from policies.artifacts.source_artifact import CURRENT, MANIFEST, Artifact, load

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


def load_artifact(where: str) -> Artifact:
    """Return the artifact at a path or URI: that of a version's folder, or a root's current one.

    Raises:
        ArtifactError: as ``load``, or it cannot be reached.
    """
    if "://" in where:
        where = str(_fetched(pinned(where)))
    folder = Path(where)
    return load(folder.parent, folder.name) if (folder / MANIFEST).is_file() else load(folder)


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
        with contextlib.suppress(OSError):  # if another process was faster, its copy is as good
            scratch.rename(final)
    except OSError as error:
        raise ArtifactError(f"the artifact cannot be fetched: {error}", "artifact") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return final
