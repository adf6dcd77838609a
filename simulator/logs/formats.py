"""A log by its path and format, as pieces."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

from pyarrow import fs

from bandits.errors import ReplayError
from policies.storage import Storage
from simulator.logs.archive import policy_pieces
from simulator.logs.base import Piece
from simulator.logs.csv_log import CsvColumns, csv_pieces
from simulator.logs.dsjson import dsjson_pieces
from simulator.logs.files import LogFile, files_of, local, size_of
from simulator.logs.obd import obd_pieces
from simulator.logs.vw_text import text_pieces

Format = Literal["archive", "dsjson", "vw", "obd", "csv"]
LEAST_BYTES = 1 << 16
"""Of a piece: less is not worth a task."""


def open_log(
    log: str,
    log_format: str,
    *,
    shards: int = 1,
    skip_bad: bool = False,
    columns: CsvColumns | None = None,
    extra: Sequence[str] = (),
) -> list[Piece]:
    """The pieces of a log, about ``shards`` of them.

    ``log``: of an archive the folder or URI, of one policy or with one policy in it; of obd a campaign's folder; else a
    file, or a glob of files, by path or URI, that are read in the order of their names. ``columns``, ``extra``: of CSV.

    Raises:
        ReplayError: there is no such log.
        ArchiveError, BadRowError: it is damaged.
    """
    if log_format not in get_args(Format):
        raise ReplayError(f"a log's format is one of {', '.join(get_args(Format))}, not {log_format!r}", "format")
    if log_format == "archive":
        root, policy = archived_policy(log)
        where = root if "://" in root else str(Path(root).absolute())
        return list(policy_pieces(where, policy, shards, skip_bad=skip_bad))
    if log_format == "obd":
        folder = Path(local(log)).resolve()
        size = size_of(folder / f"{folder.name}.csv")
        return list(obd_pieces(folder, piece_bytes=_share(size, shards), skip_bad=skip_bad))
    files = files_of(log)
    share = _share(sum(map(size_of, files)), shards)
    read: Callable[[LogFile], Sequence[Piece]]
    if log_format == "csv":
        mapping = columns or CsvColumns()
        read = lambda file: csv_pieces(file, mapping, extra=extra, piece_bytes=share, skip_bad=skip_bad)  # noqa: E731
    else:
        pieces_of = dsjson_pieces if log_format == "dsjson" else text_pieces
        read = lambda file: pieces_of(file, piece_bytes=share, skip_bad=skip_bad)  # noqa: E731
    return [piece for file in files for piece in read(file)]


def archived_policy(log: str) -> tuple[str, str]:
    """The root of an archive and the policy in it.

    Raises:
        ReplayError: there is none, or there are several.
    """
    found = [info for info in Storage(log, "").list() if info.type == fs.FileType.Directory]
    if any(str(info.base_name).startswith(("date=", "partition=")) for info in found):
        root, _, policy = log.rstrip("/").rpartition("/")
        return root or ".", policy
    policies = [str(info.base_name) for info in found if not str(info.base_name).startswith("_")]
    if len(policies) != 1:
        what = (
            f"the archives of {', '.join(policies)}: name one, as in {log.rstrip('/')}/{policies[0]}"
            if policies
            else "no archive"
        )
        raise ReplayError(f"{log} holds {what}", "log")
    return log, policies[0]


def _share(size: int, shards: int) -> int:
    return max(LEAST_BYTES, -(-size // max(1, shards)))
