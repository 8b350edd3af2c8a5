"""Clips with pictures that can be read back, for captioners that look."""

from pathlib import Path

from pipeline.storage import Store
from pipeline.tier.records import ClipRecord, read_records
from tests.media_files import numbered_frames, write_video
from tests.pipeline.tier.tables import ClipMaker


def records_of(maker: ClipMaker, folder: Path) -> list[ClipRecord]:
    store = Store(str(folder))
    tables = maker.write(store)
    return list(read_records(store, tables, [clip["clip_id"] for clip in maker.clips]))


def numbered_clips(folder: Path, num_clips: int, *, num_frames: int = 20) -> list[ClipRecord]:
    """Spans of one video whose frames carry their number, in the order of time."""
    path = write_video(folder / "numbers.mp4", numbered_frames(num_clips * num_frames))
    maker = ClipMaker()
    for number in range(num_clips):
        maker.add(
            uri=path.as_uri(), start=number * num_frames, num_frames=num_frames, size_WH=(64, 32)
        )
    records = records_of(maker, folder / "tables")
    return sorted(records, key=lambda record: record.clip.start_frame)
