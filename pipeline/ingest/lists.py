"""Input lists: a text file of names, or JSONL or Parquet rows with what is known of each source.

Columns: `source_uri` (or `uri`, or `path`), and optionally `licence` (or `license`),
`origin_url`, `tags`. Others are ignored. A relative path counts from the list's own folder.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa

from pipeline.arrow import read_parquet
from pipeline.ingest.entry import ListedEntry, ListingError
from pipeline.ingest.folders import list_file
from pipeline.ingest.remote import list_remote_file
from pipeline.media.uris import is_file_uri, path_of
from pipeline.storage import is_url
from schemas.object_store import access_errors
from schemas.source import Provenance

LIST_SUFFIXES = (".txt", ".jsonl", ".parquet")
_URI_COLUMNS = ("source_uri", "uri", "path")
_LICENCE_COLUMNS = ("licence", "license")


def read_list(location: str) -> Iterator[ListedEntry]:
    """The entries that the list names, in its order. Raises ListingError with the line."""
    data = _read_bytes(location)
    folder = location.rpartition("/")[0] if is_url(location) else os.path.dirname(location) or "."
    for place, row in _rows(location, data):
        name = next((row[key] for key in _URI_COLUMNS if row.get(key)), None)
        if not isinstance(name, str):
            raise ListingError(f"{place}: needs a text in one of {_URI_COLUMNS}")
        entry = _list_named(name, folder, place)
        yield entry.model_copy(update={"provenance": _provenance(row, place)})


def _read_bytes(location: str) -> bytes:
    try:
        if not is_url(location):
            return Path(location).read_bytes()
        fs, path = fsspec.url_to_fs(location)
        data: bytes = fs.cat_file(path)
    except access_errors() as error:
        raise ListingError(f"{location}: the list cannot be read: {error}") from error
    return data


def _rows(location: str, data: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    lowered = location.lower()
    if lowered.endswith(".parquet"):
        return _parquet_rows(location, data)
    if lowered.endswith(".jsonl"):
        return _json_rows(location, data)
    return _text_rows(location, data)


def _text_rows(location: str, data: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(data.split(b"\n"), start=1):
        name = os.fsdecode(line.removesuffix(b"\r"))
        if name.strip():
            yield f"{location}:{number}", {"source_uri": name}


def _json_rows(location: str, data: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        place = f"{location}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ListingError(f"{place}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ListingError(f"{place}: needs an object, got {type(row).__name__}")
        yield place, row


def _parquet_rows(location: str, data: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        table = read_parquet(data)
    except pa.ArrowException as error:
        raise ListingError(f"{location}: not a Parquet file: {error}") from error
    wanted = {*_URI_COLUMNS, *_LICENCE_COLUMNS, "origin_url", "tags"}
    table = table.select([name for name in table.column_names if name in wanted])
    for number, row in enumerate(table.to_pylist()):
        yield f"{location}: row {number}", row


def _list_named(name: str, folder: str, place: str) -> ListedEntry:
    if is_file_uri(name):
        try:
            return list_file(path_of(name))
        except ValueError as error:
            raise ListingError(f"{place}: {error}") from error
    if is_url(name):
        return list_remote_file(name)
    if is_url(folder) and not os.path.isabs(name):
        return list_remote_file(f"{folder}/{name}")
    return list_file(Path(folder, name))


def _provenance(row: Mapping[str, Any], place: str) -> Provenance:
    licence = next((row[key] for key in _LICENCE_COLUMNS if row.get(key)), None)
    tags = row.get("tags") or ()
    if not isinstance(tags, Iterable) or isinstance(tags, str | bytes | Mapping):
        raise ListingError(f"{place}: tags must be a list of texts, got {tags!r}")
    try:
        return Provenance(licence=licence, origin_url=row.get("origin_url"), tags=tuple(tags))
    except ValueError as error:
        raise ListingError(f"{place}: {error}") from error
