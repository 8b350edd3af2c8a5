"""The `sources` rows of the present pool: what was listed, what ingest found, what is excluded."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pyarrow as pa

from pipeline.ingest.entry import ListedEntry, ListingError
from pipeline.ingest.table import IngestRow
from pipeline.media.uris import file_uri, is_file_uri, path_of
from pipeline.storage import is_url
from schemas.source import SourceRow
from schemas.status import Failure

EXCLUDED = "excluded"
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def rows_by_item(table: pa.Table) -> dict[str, IngestRow]:
    """Rows of the `ingest` table by item id."""
    return {row["item_id"]: IngestRow.model_validate(row) for row in table.to_pylist()}


def read_exclusions(path: Path) -> frozenset[str]:
    """A takedown list: URIs, local paths or sha256, one per line; `#` starts a comment line."""
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except OSError as error:
        raise ListingError(f"{path}: the list of exclusions cannot be read: {error}") from error
    wanted = (line.strip() for line in lines)
    return frozenset(_exclusion(line) for line in wanted if line and not line.startswith("#"))


def source_rows(
    entries: Iterable[ListedEntry],
    ingested: Mapping[str, IngestRow],
    exclude: frozenset[str] = frozenset(),
) -> list[SourceRow]:
    """One row per entry, sorted by URI. Of equal contents the first that is ok is kept.

    An entry that ingest has not seen is a failed row as well (`not_ingested`), never a gap.
    """
    rows: list[SourceRow] = []
    first_uri: dict[str, str] = {}
    for entry in sorted(entries, key=lambda entry: entry.source_uri):
        row = _source_row(entry, ingested.get(entry.item_id), exclude)
        if row.ok and row.sha256 is not None:
            kept = first_uri.setdefault(row.sha256, row.source_uri)
            if kept != row.source_uri:
                row = row.model_copy(update={"duplicate_of": kept})
        rows.append(row)
    return rows


def _source_row(entry: ListedEntry, found: IngestRow | None, exclude: frozenset[str]) -> SourceRow:
    sha256 = found.sha256 if found is not None else None
    failure = _failure(entry, found)
    if entry.source_uri in exclude or sha256 in exclude:
        failure = Failure(error_class=EXCLUDED, error=f"{entry.source_uri}: on the exclusion list")
    return SourceRow(
        ok=failure is None,
        error_class=failure.error_class if failure else None,
        error=failure.error if failure else None,
        source_uri=entry.source_uri,
        listing_id=entry.listing_id,
        num_bytes=entry.num_bytes,
        sha256=sha256,
        probe=found.probe if found is not None else None,
        provenance=entry.provenance,
    )


def _failure(entry: ListedEntry, found: IngestRow | None) -> Failure | None:
    if entry.failure is not None:
        return entry.failure
    if found is None:
        return Failure(error_class="not_ingested", error=f"{entry.source_uri}: not ingested yet")
    if found.error_class is not None:
        return Failure(error_class=found.error_class, error=found.error or found.error_class)
    return None


def _exclusion(line: str) -> str:
    if _SHA256.fullmatch(line):
        return line.lower()
    if is_url(line) and not is_file_uri(line):
        return line
    return file_uri(path_of(line) if is_file_uri(line) else line)
