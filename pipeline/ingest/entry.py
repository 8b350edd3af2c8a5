"""One entry of the pool as the listing found it: a name that promises a medium, not yet opened."""

import hashlib
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import Field

from schemas.base import StrictModel
from schemas.source import Provenance
from schemas.status import Failure

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".f4v", ".wmv", ".asf", ".mpg",
    ".mpeg", ".mpe", ".m2v", ".ts", ".m2ts", ".mts", ".vob", ".ogv", ".ogg", ".3gp", ".3g2",
    ".y4m", ".gif", ".apng",
})
IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".avif", ".heic", ".heif", ".tif",
    ".tiff",
})
# Never followed: listed so that the refusal has a row and a reason.
PLAYLIST_SUFFIXES = frozenset({".m3u8", ".m3u", ".mpd", ".ffconcat"})
# fmt: on
MEDIA_SUFFIXES = VIDEO_SUFFIXES | IMAGE_SUFFIXES | PLAYLIST_SUFFIXES


class ListedEntry(StrictModel):
    """A file or object, or (with `failure`) why the entry of that name cannot be one."""

    source_uri: str
    listing_id: str  # changes when size or modification mark changes
    num_bytes: Annotated[int, Field(ge=0)] | None = None
    provenance: Provenance = Provenance()
    failure: Failure | None = None

    @property
    def item_id(self) -> str:
        """32 hex digits of name and listing mark: a changed file is a new item."""
        text = f"{self.source_uri}\n{self.listing_id}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


class ListingError(ValueError):
    """An input that cannot be listed at all: one line with the place and what is wrong."""


def bears_media_suffix(name: str) -> bool:
    """By name alone, in any case of letters. A file named only `.mp4` counts."""
    lowered = name.lower()
    return PurePosixPath(lowered).suffix in MEDIA_SUFFIXES or lowered in MEDIA_SUFFIXES


def failed_entry(source_uri: str, error_class: str, error: str) -> ListedEntry:
    """An entry that is known to be unusable before it is opened."""
    failure = Failure(error_class=error_class, error=f"{source_uri}: {error}")
    return ListedEntry(source_uri=source_uri, listing_id=error_class, failure=failure)
