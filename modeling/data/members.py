"""The two members of a sample, by the index: one ranged read, for they are neighbors in the tar."""

from pydantic import ValidationError

from modeling.data.corpus import SamplePlace
from modeling.data.errors import DataError
from modeling.data.files import RangeReader
from schemas.shard import ShardSample


def fetch_members(files: RangeReader, place: SamplePlace) -> tuple[bytes, ShardSample]:
    """The media member's bytes and the description. Raises DataError for a shard that changed."""
    first = min(place.media_offset, place.json_offset)
    end = max(place.media_offset + place.media_size, place.json_offset + place.json_size)
    data = memoryview(files.read(place.shard, first, end - first))
    start = place.media_offset - first
    media = bytes(data[start : start + place.media_size])
    start = place.json_offset - first
    text = bytes(data[start : start + place.json_size])
    try:
        sample = ShardSample.model_validate_json(text)
    except ValidationError as error:
        raise _altered(place, "what lies there is no description of a sample") from error
    if sample.clip_id != place.key:
        raise _altered(place, f"{sample.clip_id} lies there")
    return media, sample


def _altered(place: SamplePlace, found: str) -> DataError:
    return DataError(
        place.shard,
        f"the index says {place.key} at byte {place.json_offset}, {found}",
        "the shard was altered after its manifest was written; fetch it again",
    )
