"""Lists local folders and files by name and status only: nothing is opened or waited for."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pipeline.ingest.entry import ListedEntry, bears_media_suffix, failed_entry
from pipeline.media.fetch import kind_of
from pipeline.media.uris import file_uri


def list_folder(folder: Path) -> Iterator[ListedEntry]:
    """Every entry below the folder whose name bears a media suffix, hidden ones included.

    Links to folders are not followed; a link to a file counts when the file lies in the folder.
    """
    root = os.path.realpath(folder)
    waiting = [os.path.abspath(folder)]
    while waiting:
        place = waiting.pop()
        try:
            with os.scandir(place) as found:
                entries = list(found)
        except OSError as error:
            uri = file_uri(place)
            yield failed_entry(uri, "unreadable", f"folder cannot be listed: {error.strerror}")
            continue
        for entry in entries:
            if bears_media_suffix(entry.name):
                yield list_file(Path(entry.path), root=root)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)


def list_file(path: Path, *, root: str | None = None) -> ListedEntry:
    """One entry. With `root`, a link whose target lies outside of it is refused."""
    uri = file_uri(path)
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            if root is not None and not _is_inside(os.path.realpath(path), root):
                # A loop resolves to itself, inside; only what truly leads out is refused here.
                return failed_entry(uri, "link_outside_input", "links to a place outside the input")
            status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        is_link = path.is_symlink()
        text = "links to nothing" if is_link else "does not exist"
        return failed_entry(uri, "link_broken" if is_link else "not_found", text)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return failed_entry(uri, "link_loop", "links lead in a circle")
        return failed_entry(uri, "unreadable", str(error.strerror))
    if not stat.S_ISREG(status.st_mode):
        return failed_entry(uri, "not_a_file", f"{kind_of(status.st_mode)}, not a file")
    return ListedEntry(
        source_uri=uri,
        listing_id=f"{status.st_size}:{status.st_mtime_ns}",
        num_bytes=status.st_size,
    )


def _is_inside(path: str, root: str) -> bool:
    return os.path.commonpath([path, root]) == root
