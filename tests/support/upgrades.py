"""What an earlier build has left, unpacked: see tests/fixtures/README.md."""

import tarfile
from pathlib import Path
from typing import Any

import msgspec

from policies.spec import PolicySpec, load_spec

FIXTURES = Path(__file__).parents[1] / "fixtures"
BUILDS = {1: "1c51045", 4: "b811b9f", 5: "d93dba7", 6: "5ba4ea2"}
"""Builds that have left something, each by its commit, and by the version of its fold."""


class Left(msgspec.Struct, frozen=True):
    """A data directory as that build left it, in a folder of the test's own.

    ``expected``: by policy, what its learner had counted, and the ids of the snapshots it had
    stored by position.
    """

    folder: Path
    expected: dict[str, Any]
    specs: dict[str, PolicySpec]

    @property
    def data(self) -> Path:
        """What --data-dir named."""
        return self.folder / "data"

    @property
    def archive(self) -> str:
        """Its archive."""
        return str(self.data / "archive")

    @property
    def salt(self) -> bytes:
        """Its secret."""
        return (self.data / "salt").read_bytes()

    def stored(self, snapshot_id: str) -> bytes:
        """The bytes of a snapshot."""
        return (self.folder / "snapshots" / snapshot_id).read_bytes()


def unpacked(folder: Path, version: int = 1) -> Left:
    """A fresh copy in this folder of what the build of a version of the fold has left."""
    with tarfile.open(FIXTURES / f"upgrade-{BUILDS[version]}.tar.xz") as tar:
        tar.extractall(folder, filter="data")
    expected = msgspec.json.decode((folder / "expected.json").read_bytes())
    return Left(folder, expected, {name: load_spec(folder / f"{name}.yaml") for name in expected})
