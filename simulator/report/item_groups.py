"""Of which group an item is, by a feature that the catalogue says of it."""

from collections.abc import Callable

from bandits.errors import BanditloopError
from policies.archive.archive import ArchiveReader, archive_folders
from policies.archive.shared import archived_items
from simulator.logs.archive.batches import Catalogues
from simulator.report.gather import Root

Groups = Callable[[str], str | None]
"""Gives the group of an item; None: it is of none."""


def groups_of_items(root: Root, policy: str, version: str, field: str) -> Groups:
    """Return what gives the group of each item of a version of the catalogue.

    An item is of no group where it lacks the feature, where that is neither a text nor a flag, and
    where the catalogue does not have it any more.

    Args:
        root: the archive's folder or URI, or a file system.
        policy: its name.
        version: as a decision names it; "": nothing is known of any item.
        field: the feature whose values are the groups.
    """
    reader = ArchiveReader(root, archive_folders(root, policy)[0])
    catalogues = Catalogues(reader, archived_items(root, policy))

    def group_of(item_id: str) -> str | None:
        try:
            item = catalogues.item(version, item_id) if version else None
        except BanditloopError:
            return None
        value = None if item is None else item.features.get(field)
        if isinstance(value, bool):
            return "true" if value else "false"
        return value if isinstance(value, str) else None

    return group_of
