"""How far a fit has come, on disk: a fit that was killed goes on from there."""

import os
import pickle
from pathlib import Path
from typing import Any, Self

import torch

from bandits.errors import ArtifactError


class FitCheckpoints:
    """The file of one network's fit; without a folder, nothing is kept.

    It is deleted by whoever has taken the fitted network.

    Args:
        path: the file.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    @classmethod
    def of(cls, folder: Path | None, name: str) -> Self:
        """Return those of a network in a folder.

        Args:
            folder: of this training's checkpoints.
            name: the network's.
        """
        return cls(None if folder is None else folder / f"{name}.pt")

    def read(self) -> dict[str, Any] | None:
        """Return what was written last; None if nothing was.

        Raises:
            ArtifactError: the file is damaged.
        """
        if self._path is None or not self._path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self._path, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError, OSError) as error:
            raise ArtifactError(
                f"{self._path} is damaged: delete it, and the fit begins anew", self._path.name
            ) from error
        return state

    def write(self, state: dict[str, Any]) -> None:
        """Keep a state instead of the one before: whoever reads sees the one or the other.

        Args:
            state: tensors, numbers and text.
        """
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        scratch = self._path.with_suffix(".tmp")
        with scratch.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self._path)
