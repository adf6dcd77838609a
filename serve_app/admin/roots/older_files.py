"""The files of an archive that are before the root of its log."""

from bandits.log.positions import has_reached, is_after, position_ms
from policies.archive.archive import ArchiveReader
from policies.archive.listing import ListedFile
from policies.profiles.root_parts import remove_other_parts
from policies.storage import Storage
from serve_app.store.checkpoints import Root


def older_files(root: Root, archive: str, folder: str) -> list[ListedFile]:
    """Return the files of an archive that neither learning nor a verification reads any more.

    Args:
        root: the log's.
        archive: folder or URI of the archive.
        folder: the log's, within it.

    Raises:
        OSError: the file system cannot be reached.
    """
    listing, found = ArchiveReader(archive, folder).chain.listing, list[ListedFile]()
    # The newest stays: the next one goes on behind it.
    end = listing.end
    for hour in listing.hours():
        files = listing.of_hour(hour)
        found += [file for file in files if is_after(root.needed, file.last) and file.last != end]
        if any(has_reached(file.first, root.needed) for file in files):
            break
    return found


def remove_older(
    root: Root, archive: str, folder: str, *, before_ms: int | None = None
) -> list[ListedFile]:
    """Remove the files of an archive that nothing needs any more; return those of the log.

    What was known of users at earlier roots goes, too.

    Args:
        root: the log's.
        archive: folder or URI of the archive.
        folder: the log's, within it.
        before_ms: files that end then or later stay, in milliseconds since 1970; None: none does.

    Raises:
        OSError: the file system cannot be reached.
    """
    files, older = Storage(archive, folder), older_files(root, archive, folder)
    if before_ms is not None:
        older = [each for each in older if position_ms(each.last) < before_ms]
    # The oldest first: what stays is without a gap whenever this ends.
    for each in older:
        files.remove(each.path)
    remove_other_parts(files, root.profiles)
    return older
