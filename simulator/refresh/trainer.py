"""The process that trains: ``python -m simulator.refresh.trainer FOLDER``.

It yields to everything else on the machine, may be given a limit of memory, and whatever becomes of
it, the process that asked goes on. It finds what to do in the folder, tells of its steps on
standard output, and leaves its answer in the folder.
"""

import os
import resource
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from bandits.errors import BanditloopError

REQUEST, ANSWER, ARTIFACT = "request.json", "answer.json", "artifact"
CHECKPOINTS = "checkpoints"
EVENTS_UNTIL = "events_until_ms"
"""The name under which an artifact says up to when it has seen the log."""
OUT_OF_MEMORY = 77
"""The exit status of a training that was refused memory."""
BAD_DATA = 78
"""The exit status of a training whose answer says what is wrong."""


class TrainingRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The task of a training.

    ``events_until_ms``: training saw no event of the log from then on. ``memory_bytes``: how much
    the process may take; 0: as much as there is. ``niceness``: how far it yields to others.
    ``changes``: what sources are fitted with, where it differs from the usual.
    """

    sources: list[str]
    seed: int = 0
    jobs: int = 1
    address: str | None = None
    events_until_ms: int = 0
    memory_bytes: int = 0
    niceness: int = 10
    changes: dict[str, dict[str, Any]] = {}


class TrainingAnswer(msgspec.Struct, frozen=True):
    """The outcome of a training: the artifact's version, or what was wrong with the data."""

    version: str = ""
    code: str = ""
    message: str = ""


class TrainingStep(msgspec.Struct, frozen=True):
    """A line of standard output: so many steps of a source are done."""

    source: str
    done: int
    total: int


def train_in_folder(folder: Path) -> int:
    """Train what a folder asks for; return the exit status.

    Args:
        folder: with the request and the data; it gets the artifact and the answer.
    """
    request = msgspec.json.decode((folder / REQUEST).read_bytes(), type=TrainingRequest)
    os.nice(request.niceness)
    if request.memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (request.memory_bytes, request.memory_bytes))

    status, answer = 0, TrainingAnswer()
    try:
        answer = TrainingAnswer(_train(folder, request))
    except BanditloopError as error:
        status, answer = BAD_DATA, TrainingAnswer(code=error.code, message=error.message)
    except MemoryError:
        status = OUT_OF_MEMORY
    except RuntimeError as error:  # torch has no type for it
        if "allocate memory" not in str(error):
            raise
        status = OUT_OF_MEMORY
    (folder / ANSWER).write_bytes(msgspec.json.encode(answer))
    return status


def _train(folder: Path, request: TrainingRequest) -> str:
    # Imported under the limit of memory, and where an error is caught.
    from policies.artifacts import source_artifact  # noqa: PLC0415
    from policies.artifacts.fitted_with import with_changes  # noqa: PLC0415
    from policies.training.fits import TrainConfig  # noqa: PLC0415
    from policies.training.train import run_training  # noqa: PLC0415
    from simulator.refresh.training_data import read_training_data  # noqa: PLC0415
    from simulator.training.place import training_place  # noqa: PLC0415

    events, items = read_training_data(folder)
    with training_place(
        jobs=request.jobs, address=request.address, checkpoints=folder / CHECKPOINTS
    ) as place:
        run = run_training(
            events,
            items,
            sources=request.sources,
            config=with_changes(TrainConfig(), request.changes),
            seed=request.seed,
            progress=_tell,
            map_tasks=place.map_tasks,
            checkpoints=place.checkpoints,
        )
    made = {**run.artifact.created_with, EVENTS_UNTIL: str(request.events_until_ms)}
    artifact = replace(run.artifact, created_with=made)
    return source_artifact.write(artifact, folder / ARTIFACT)


def _tell(source: str, done: int, total: int) -> None:
    sys.stdout.write(msgspec.json.encode(TrainingStep(source, done, total)).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(train_in_folder(Path(sys.argv[1])))
