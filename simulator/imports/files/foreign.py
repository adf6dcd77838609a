"""Files that are no tables, told by their first bytes: what they are, and what to do."""

from bandits.errors import DataSetError
from simulator.imports.files.chunks import name_of
from simulator.logs.files import LogFile

HEAD = 512
"""Bytes by which a file is told."""

_UNPACK = "unpack it first"
_SHEET = "save its sheet as CSV"
_CONVERT = "write it as Parquet or CSV"
_PAGE = "is a page of the web, and no table: maybe its address asks for a login; fetch it again"

_FOREIGN = (
    (b"PK\x03\x04", f"is a ZIP archive or an Excel workbook: {_UNPACK}, or {_SHEET}"),
    (b"\xd0\xcf\x11\xe0", f"is an Excel workbook: {_SHEET}"),
    (b"BZh", f"is compressed by bzip2: {_UNPACK}"),
    (b"\xfd7zXZ", f"is compressed by xz: {_UNPACK}"),
    (b"7z\xbc\xaf", f"is a 7z archive: {_UNPACK}"),
    (b"Rar!", f"is a RAR archive: {_UNPACK}"),
    (b"ARROW1", f"is Arrow IPC (Feather): {_CONVERT}"),
    (b"Obj\x01", f"is Avro: {_CONVERT}"),
    (b"ORC\n", f"is ORC: {_CONVERT}"),
    (b"SQLite format 3", f"is an SQLite database: {_CONVERT}"),
    (b"\x80\x04", f"is a pickle: {_CONVERT}"),
    (b"\x80\x05", f"is a pickle: {_CONVERT}"),
)
_TAR_AT, _TAR = 257, b"ustar"


def refuse_foreign(file: LogFile, head: bytes) -> None:
    """Raise DataSetError if a file is of a kind that nobody reads here.

    Args:
        file: the file.
        head: its first bytes, as stored or decompressed.
    """
    said = next((said for magic, said in _FOREIGN if head.startswith(magic)), None)
    if said is None and head[_TAR_AT:].startswith(_TAR):
        said = f"is a tar archive: {_UNPACK}"
    if said is None and head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        said = _PAGE
    if said is None and head.lstrip().startswith(b"<?xml"):
        said = f"is XML: {_CONVERT}"
    if said is not None:
        raise DataSetError(f"{name_of(file)} {said}", "events")
