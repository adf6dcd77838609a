"""A log by its path and format, as pieces."""

import os.path
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar, get_args

from pyarrow import fs

from bandits.errors import ReplayError
from bandits.log.positions import START
from policies.storage import Storage, shown, split_name
from simulator.logs.archive.pieces import policy_pieces
from simulator.logs.csv_columns import CsvColumns
from simulator.logs.csv_log import CsvPiece, csv_pieces, with_column_kinds
from simulator.logs.dsjson import dsjson_pieces
from simulator.logs.files import LogFile, files_of, local_path, size_of
from simulator.logs.obd import obd_pieces
from simulator.logs.rows import Piece
from simulator.logs.text_records import RecordPiece
from simulator.logs.vw_text import text_pieces

Format = Literal["archive", "dsjson", "vw", "obd", "csv"]
LEAST_BYTES = 1 << 16
"""Least size of a piece: less is not worth a task."""


def open_log(
    log: str,
    log_format: str,
    *,
    shards: int = 1,
    skip_bad: bool = False,
    columns: CsvColumns | None = None,
    extra: Sequence[str] = (),
    window_s: float | None = None,
    after: str = START,
    through: str | None = None,
) -> list[Piece]:
    """Return the pieces of a log, about ``shards`` of them.

    Args:
        log: An archive's folder or URI, of one policy or with one policy in it; a campaign's folder
            of obd; or else a file or a glob of files, by path or URI, read in the order of their
            names.
        log_format: One of Format.
        shards: How many pieces to aim at.
        skip_bad: Whether bad rows are counted and left out, rather than an error.
        columns: Which column of a CSV is what.
        extra: Further columns of numbers of a CSV to hand on.
        window_s: Seconds after its decision for which a reward counts, to look at an archive before
            its windows have closed.
        after: Only decisions of an archive past this position.
        through: Only decisions of an archive up to this one; None: to the end.

    Raises:
        ReplayError: There is no such log.
        ArchiveError, BadRowError: It is damaged.
    """
    if log_format not in get_args(Format):
        raise ReplayError(
            f"a log's format is one of {', '.join(get_args(Format))}, not {log_format!r}", "format"
        )
    if window_s is not None and (log_format != "archive" or not window_s > 0.0):
        raise ReplayError(
            "a window of some seconds needs an archive, whose rewards have times", "window_s"
        )

    if log_format != "archive" and (after != START or through is not None):
        raise ReplayError("a part of a log by its time needs an archive", "since")

    if log_format == "archive":
        root, policy = archived_policy(log)
        where = root if "://" in root else str(Path(root).absolute())
        return list(
            policy_pieces(
                where,
                policy,
                shards,
                skip_bad=skip_bad,
                window_s=window_s,
                after=after,
                through=through,
            )
        )
    if log_format == "obd":
        folder = Path(local_path(log)).resolve()
        size = size_of(folder / f"{folder.name}.csv")
        return list(obd_pieces(folder, piece_bytes=_share(size, shards), skip_bad=skip_bad))

    files = files_of(log)
    share = _share(sum(map(size_of, files)), shards)
    if log_format == "csv":
        mapping = columns or CsvColumns()
        tables = [
            csv_pieces(file, mapping, extra=extra, piece_bytes=share, skip_bad=skip_bad)
            for file in files
        ]
        return list(with_column_kinds(_joined(files, tables)))

    pieces_of = dsjson_pieces if log_format == "dsjson" else text_pieces
    pieces = [pieces_of(file, piece_bytes=share, skip_bad=skip_bad) for file in files]
    return list(_joined(files, pieces))


_FilePiece = TypeVar("_FilePiece", CsvPiece, RecordPiece)


def _joined(files: Sequence[LogFile], pieces: Sequence[Sequence[_FilePiece]]) -> list[_FilePiece]:
    """Return the pieces of all files.

    Where two files have one name, rows are named after the path that tells them apart.
    """
    names = Counter(file.name for file in files)
    if len(names) == len(files):
        return [piece for part in pieces for piece in part]

    above = os.path.commonpath([str(file) for file in files])
    called = [os.path.relpath(str(file), above) if names[file.name] > 1 else "" for file in files]
    return [
        replace(piece, span=replace(piece.span, called=name))
        for name, part in zip(called, pieces, strict=True)
        for piece in part
    ]


def archived_policy(log: str) -> tuple[str, str]:
    """Return the root of an archive and the policy in it.

    Raises:
        ReplayError: There is no archive, or there are several.
    """
    entries = Storage(log, "").list()
    folders = [str(info.base_name) for info in entries if info.type == fs.FileType.Directory]

    # It may be the folder of the policy itself, which holds its days or partitions.
    if any(name.startswith(("date=", "partition=")) for name in folders):
        return split_name(log)

    policies = [name for name in folders if not name.startswith("_")]
    if not policies:
        raise ReplayError(f"{shown(log)} holds no archive", "log")
    if len(policies) > 1:
        raise ReplayError(
            f"{shown(log)} holds the archives of {', '.join(policies)}: name one, as in"
            f" {shown(log).rstrip('/')}/{policies[0]}",
            "log",
        )
    return log, policies[0]


def _share(size: int, shards: int) -> int:
    return max(LEAST_BYTES, -(-size // max(1, shards)))
