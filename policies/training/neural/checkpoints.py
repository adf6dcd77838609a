"""How far a fit has come, on disk: a fit that was killed goes on from there."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from bandits.errors import ArtifactError

EVERY_S = 2.0
"""Seconds between two checkpoints: what is lost at most, for next to no time spent on writing."""

Arrays = Mapping[str, NDArray[Any]]


class FolderCheckpoints:
    """A folder with a file for each network; whoever has taken the fitted networks deletes it.

    Args:
        folder: of one training: of the same data, hyperparameters, seed and packages.
        every_s: seconds between two checkpoints of a network.
    """

    def __init__(self, folder: Path, every_s: float = EVERY_S) -> None:
        self._folder = folder
        self._every_s = every_s
        self._written: dict[str, float] = {}

    def due(self, name: str) -> bool:
        """Return whether a network's last checkpoint is long enough ago for another.

        Args:
            name: the network's.
        """
        return time.monotonic() - self._written.get(name, -self._every_s) >= self._every_s

    def read(self, name: str) -> Arrays | None:
        """Return what was written last; None if nothing was.

        Args:
            name: the network's.

        Raises:
            ArtifactError: the file is damaged.
        """
        path = self._folder / f"{name}.safetensors"
        if not path.exists():
            return None
        try:
            return load(path.read_bytes())  # type: ignore[no-any-return]
        except SafetensorError as error:
            raise ArtifactError(
                f"{path} is damaged ({error}): delete it, and the fit begins anew", path.name
            ) from error

    def write(self, name: str, state: Arrays) -> None:
        """Keep a state instead of the one before: whoever reads sees the one or the other.

        Args:
            name: the network's.
            state: arrays, by name.
        """
        path = self._folder / f"{name}.safetensors"
        self._folder.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        with scratch.open("wb") as file:
            file.write(save(dict(state)))
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
        self._written[name] = time.monotonic()
