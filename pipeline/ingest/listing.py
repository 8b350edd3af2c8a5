"""What the pool holds now: one entry per name that bears a media suffix, sorted, each once."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.ingest.entry import ListedEntry, ListingError
from pipeline.ingest.folders import list_file, list_folder
from pipeline.ingest.lists import LIST_SUFFIXES, read_list
from pipeline.ingest.remote import list_remote
from pipeline.media.uris import is_file_uri, path_of
from pipeline.storage import is_url
from schemas.source import Provenance


def list_inputs(locations: Iterable[str]) -> list[ListedEntry]:
    """Entries of folders, single files, URLs and input lists, in the order of their URIs.

    An entry that several inputs name counts once; what a list says of it wins over a folder that
    says nothing, and the earlier input over the later. Raises ListingError.
    """
    entries: dict[str, ListedEntry] = {}
    for location in locations:
        for entry in _list_one(location):
            known = entries.get(entry.source_uri)
            if known is None or (
                known.provenance == Provenance() and entry.provenance != Provenance()
            ):
                entries[entry.source_uri] = entry
    return [entries[uri] for uri in sorted(entries)]


def _list_one(location: str) -> Iterator[ListedEntry]:
    if is_file_uri(location):
        location = str(path_of(location))
    if location.lower().endswith(LIST_SUFFIXES) and not os.path.isdir(location):
        return read_list(location)
    if is_url(location):
        return list_remote(location)
    if os.path.isdir(location):
        return list_folder(Path(location))
    if not os.path.lexists(location):
        raise ListingError(f"{location}: does not exist")
    return iter([list_file(Path(location))])
