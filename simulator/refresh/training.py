"""Training in a process of its own, from whose end it is told what went wrong."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bandits.errors import ArtifactError, TrainingDiedError, TrainingMemoryError
from policies.artifacts.source_artifact import Artifact, load
from policies.data.coded import CodedEvents
from simulator.refresh.trainer import (
    ANSWER,
    ARTIFACT,
    BAD_DATA,
    CHECKPOINTS,
    OUT_OF_MEMORY,
    REQUEST,
    TrainingAnswer,
    TrainingRequest,
    TrainingStep,
)
from simulator.refresh.training_data import write_training_data

TRAINER = (sys.executable, "-m", "simulator.refresh.trainer")
SAID_CHARS = 300
"""Characters that are kept of what a process that died has said last."""
TRIES = 3
"""Times that training is begun, if each got further than the one before."""
Progress = Callable[[str, int, int], None]
"""Told (source, steps done, steps in all)."""


def train_apart(
    request: TrainingRequest,
    events: CodedEvents,
    items: Sequence[Mapping[str, Any]],
    *,
    progress: Progress = lambda *_: None,
    trainer: Sequence[str] = TRAINER,
) -> Artifact:
    """Train sources in another process; return the artifact.

    If the process is killed while networks are fitted, another goes on from their checkpoints.

    Args:
        request: what to train.
        events: what users did.
        items: the catalogue; every item of the events is in it.
        progress: told of each source's steps.
        trainer: the command, which is given the folder it finds its request in.

    Raises:
        ArtifactError: these sources cannot be trained on this data.
        TrainingMemoryError: the process ran out of memory, or was killed, as the system kills one
            that takes too much.
        TrainingDiedError: it died of something else.
    """
    with tempfile.TemporaryDirectory(prefix="banditloop-refresh-") as name:
        folder = Path(name)
        write_training_data(folder, events, items)
        (folder / REQUEST).write_bytes(msgspec.json.encode(request))

        for _ in range(TRIES):
            before = _checkpoints_in(folder)
            status, said = _run([*trainer, name], progress)
            answer = _answer_in(folder)
            if status == 0 and answer is not None:
                return load(folder / ARTIFACT, answer.version)
            if status == BAD_DATA and answer is not None:
                raise ArtifactError(answer.message, "sources")
            if _checkpoints_in(folder) == before:
                break
    if status in (OUT_OF_MEMORY, -signal.SIGKILL):
        raise TrainingMemoryError(
            "training ran out of memory: give it a shorter window, fewer sources, or a machine with"
            " more of it",
            "training",
        )
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    raise TrainingDiedError(f"training ended {how}, and made nothing: {said}", "training")


def _run(command: Sequence[str], progress: Progress) -> tuple[int, str]:
    """Run the trainer; return how it ended, and what it said last."""
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(  # noqa: S603 - this interpreter, or what a test gives
            command, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL
        ) as process:
            try:
                for line in process.stdout or ():
                    _tell(line, progress)
                status = process.wait()
            finally:
                # Whoever interrupts this process has no use for what the other makes.
                if process.poll() is None:
                    process.kill()
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
    return status, (said[-1] if said else "it said nothing")[:SAID_CHARS]


def _tell(line: bytes, progress: Progress) -> None:
    try:
        step = msgspec.json.decode(line, type=TrainingStep)
    except msgspec.DecodeError:  # what a library prints
        return
    progress(step.source, step.done, step.total)


def _checkpoints_in(folder: Path) -> dict[Path, int]:
    """Return the files that say how far networks have come, and when each was written."""
    files = (folder / CHECKPOINTS).rglob("*.safetensors")
    return {path: path.stat().st_mtime_ns for path in files}


def _answer_in(folder: Path) -> TrainingAnswer | None:
    try:
        return msgspec.json.decode((folder / ANSWER).read_bytes(), type=TrainingAnswer)
    except (OSError, msgspec.DecodeError):
        return None
