"""Lists folders and objects behind any fsspec URL, from what the store says about them."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import fsspec

from pipeline.ingest.entry import ListedEntry, ListingError, bears_media_suffix, failed_entry
from schemas.object_store import access_errors

# What stores call the mark that changes with the content, best first.
_MARKS = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "updated", "created")

_QUOTE = '"'  # some stores put the ETag between quotes


def list_remote(url: str) -> Iterator[ListedEntry]:
    """The object of this URL, or every object below it whose name bears a media suffix."""
    try:
        fs, path = fsspec.url_to_fs(url)
        fs.invalidate_cache()
        if fs.isfile(path):
            yield _entry(fs.unstrip_protocol(path), fs.info(path))
            return
        objects = fs.find(path, withdirs=False, detail=True)
        is_there = bool(objects) or fs.exists(path)
    except access_errors() as error:
        raise ListingError(f"{url}: cannot be listed: {error}") from error
    if not is_there:
        raise ListingError(f"{url}: does not exist")
    for name, info in objects.items():
        if bears_media_suffix(name.rsplit("/", 1)[-1]):
            yield _entry(fs.unstrip_protocol(name), info)


def list_remote_file(url: str) -> ListedEntry:
    """One object that a list names; a failed entry when it is not there."""
    try:
        fs, path = fsspec.url_to_fs(url)
        return _entry(fs.unstrip_protocol(path), fs.info(path))
    except FileNotFoundError:
        return failed_entry(url, "not_found", "does not exist")
    except access_errors() as error:
        return failed_entry(url, "unreadable", " ".join(str(error).split()))


def _entry(url: str, info: Mapping[str, Any]) -> ListedEntry:
    if info.get("type") == "directory":
        return failed_entry(url, "not_a_file", "a directory, not a file")
    size = info.get("size")
    mark = next((info[key] for key in _MARKS if info.get(key) is not None), "")
    if isinstance(mark, datetime):  # some stores give either form, depending on the call
        mark = mark.timestamp()
    return ListedEntry(
        source_uri=url,
        listing_id=f"{size}:{str(mark).strip(_QUOTE)}",
        num_bytes=None if size is None else int(size),
    )
