"""An archive with more files laid over it: what is archived, and what is not yet, as one log."""

import posixpath
from collections.abc import Callable
from typing import Any

from pyarrow import fs

from policies.storage import filesystem_of

Layer = tuple[fs.FileSystem, str]
"""A folder: its file system, and the path in it."""


class OverlaidFiles(fs.FileSystemHandler):  # type: ignore[misc] # pyarrow has no types
    """Two folders as one; files are only read, and those of the upper one come first.

    Args:
        upper: a folder.
        lower: the other.
        hidden: whether a path of the lower one is passed over, as if it were not there.

    Attributes:
        lower: the file system below, which says how both are read.
    """

    def __init__(self, upper: Layer, lower: Layer, hidden: Callable[[str], bool]) -> None:
        self._layers, self._hidden, self.lower = (upper, lower), hidden, lower[0]

    def get_type_name(self) -> str:
        """Return what it is."""
        return "overlaid"

    def normalize_path(self, path: str) -> str:
        """Return the same path."""
        return path

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        """Return what is known of names: of the first layer that has them."""
        return [self._info(path) for path in paths]

    def _info(self, path: str) -> fs.FileInfo:
        for number, (system, base) in enumerate(self._layers):
            if number and self._hidden(path):
                break
            info = system.get_file_info(posixpath.join(base, path))
            if info.type != fs.FileType.NotFound:
                return _at(path, info)
        return fs.FileInfo(path, fs.FileType.NotFound)

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        """Return what is in a folder, each name once."""
        found: dict[str, fs.FileInfo] = {}
        for number, (system, base) in enumerate(self._layers):
            inside = fs.FileSelector(posixpath.join(base, selector.base_dir), allow_not_found=True)
            for info in system.get_file_info(inside):
                path = posixpath.join(selector.base_dir, info.base_name)
                if not (number and self._hidden(path)):
                    found.setdefault(info.base_name, _at(path, info))
        return list(found.values())

    def open_input_file(self, path: str) -> Any:
        """Open a file to read at any offset."""
        system, full = self._place(path)
        return system.open_input_file(full)

    def open_input_stream(self, path: str) -> Any:
        """Open a file to read from its start."""
        system, full = self._place(path)
        return system.open_input_stream(full)

    def _place(self, path: str) -> tuple[fs.FileSystem, str]:
        """Return the file system that has a file, and its path there."""
        for system, base in self._layers:
            full = posixpath.join(base, path)
            if system.get_file_info(full).type == fs.FileType.File:
                break
        return system, full

    def _refused(self, *paths: Any) -> None:
        raise OSError(f"{paths[0]}: only read")

    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = delete_file = (
        _refused
    )
    move = copy_file = open_output_stream = open_append_stream = _refused


def _at(path: str, info: fs.FileInfo) -> fs.FileInfo:
    return fs.FileInfo(path, info.type, size=info.size, mtime_ns=info.mtime_ns)


def overlaid(upper: str, lower: str, hidden: Callable[[str], bool]) -> fs.FileSystem:
    """Return an archive with another folder's files laid over it.

    Args:
        upper: the folder or URI whose files come first.
        lower: the archive's.
        hidden: whether a path of the archive's is passed over.
    """
    return fs.PyFileSystem(OverlaidFiles(filesystem_of(upper), filesystem_of(lower), hidden))
