"""A model that VW has saved, as a policy that learns no more: VW's ``-t``, with every estimator."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from bandits.errors import BadRowError, ReplayError
from bandits.types import Pmf, check_pmf
from bandits.vw.command_line import Command
from bandits.vw.log_reader import LogFormat, VwLabel, VwLogReader
from simulator.logs.rows import LoggedDecision, Piece
from simulator.logs.text_records import RecordPiece
from simulator.ope.targets import RowTarget
from simulator.replay.leakage import UnknownRows

FORMATS: dict[str, LogFormat] = {"dsjson": "dsjson", "vw": "text"}
"""VW's own formats, by what ``--format`` calls them."""
_UNKNOWN = (
    "a VW model does not say what it learned from: if these rows are among it, its values are too"
    " high"
)


class VwTarget(RowTarget):
    """VW with a command line, as it is, learning no more.

    It reads the lines of the log itself; see ``with_lines``. It is pickled without VW, which is
    opened where it is used.

    Raises:
        SpecError, SnapshotError: The arguments or the model cannot be used.
    """

    def __init__(
        self, name: str, command: Command, log_format: LogFormat, model: bytes | None
    ) -> None:
        super().__init__(name)
        self._command, self._format, self._model = replace(command, learns=False), log_format, model
        self.notes = (*([_UNKNOWN] if model is not None else []), *command.notes)
        self.provenance = None if model is None else UnknownRows(_UNKNOWN)
        _ = self._reader  # opened now, so that what is wrong with it is said before the log is read

    def __reduce__(self) -> tuple[type["VwTarget"], tuple[str, Command, LogFormat, bytes | None]]:
        return VwTarget, (self.name, self._command, self._format, self._model)

    @cached_property
    def _reader(self) -> VwLogReader:
        return VwLogReader(self._command.args, self._format, model=self._model, learns=False)

    def pmf(self, row: LoggedDecision) -> Pmf:
        """Return float64[K], as VW predicts for the row's lines; see Target."""
        try:
            pmf = self._reader.pmf(row.lines, VwLabel(row.chosen, -row.reward, row.propensity))
        except BadRowError as error:
            raise ReplayError(f"decision {row.event_id}: {error.message}", error.target) from error

        if len(pmf) != len(row.action_ids):
            raise ReplayError(
                f"decision {row.event_id}: VW sees {len(pmf)} actions there", "policy"
            )
        return check_pmf(pmf)


def with_lines(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the same pieces, whose rows bring the lines that they were read from."""
    return [
        replace(piece, keep_lines=True) if isinstance(piece, RecordPiece) else piece
        for piece in pieces
    ]


def open_reader(command: Command, log_format: LogFormat) -> VwLogReader:
    """Open VW as a command line describes it.

    Args:
        command: The command line.
        log_format: VW's name of the format.

    Raises:
        SpecError, SnapshotError: The arguments or the model cannot be used.
        ReplayError: The model cannot be read.
    """
    return VwLogReader(
        command.args, log_format, model=read_model(command.model), learns=command.learns
    )


def read_model(path: Path | None) -> bytes | None:
    """Return a file that VW has saved; None without a path.

    Raises:
        ReplayError: It cannot be read.
    """
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise ReplayError(f"{path} cannot be read: {error.strerror}", "model") from error
