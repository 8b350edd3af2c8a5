"""The `ingest` table: what hashing and probing found out about each listed entry."""

from typing import Annotated

from pydantic import Field

from pipeline.arrow import schema_of
from pipeline.ingest.config import IngestConfig
from pipeline.ingest.entry import ListedEntry
from pipeline.storage import Store
from pipeline.tables import Table
from schemas.base import fingerprint
from schemas.source import Probe
from schemas.status import Failure, StatusRow

STEP = "ingest"
VERSION = 1  # raise it when results change


class IngestRow(StatusRow):
    """One row per entry and listing mark; a changed file gets a new row."""

    item_id: str
    source_uri: str
    listing_id: str
    num_bytes: Annotated[int, Field(ge=0)] | None = None
    sha256: str | None = None
    probe: Probe | None = None


def ingest_table(store: Store, config: IngestConfig) -> Table:
    """The size of parts changes no result and is no part of the fingerprint."""
    return Table(store, STEP, fingerprint(STEP, VERSION, config.limits), schema_of(IngestRow))


def failed_row(entry: ListedEntry, failure: Failure, *, sha256: str | None = None) -> IngestRow:
    """An entry that could not be hashed or probed; the hash is kept where there is one."""
    return IngestRow(
        ok=False,
        error_class=failure.error_class,
        error=failure.error,
        item_id=entry.item_id,
        source_uri=entry.source_uri,
        listing_id=entry.listing_id,
        num_bytes=entry.num_bytes,
        sha256=sha256,
    )
