from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.caption.backend import CaptionRequest
from pipeline.caption.config import CaptionConfig
from pipeline.caption.measured import measured_caption
from pipeline.caption.worker import CaptionWorker, caption_parts, caption_table
from pipeline.media.config import MediaLimits
from pipeline.pack.select import read_captions
from pipeline.storage import Store
from pipeline.tier.records import ClipRecord, read_records
from schemas.caption import VLM_FIELDS, StructuredCaption
from schemas.status import Failure
from tests.media_files import numbered_frames, read_number, write_video
from tests.pipeline.tier.tables import ClipMaker


def records_of(maker: ClipMaker, folder: Path) -> list[ClipRecord]:
    store = Store(str(folder))
    tables = maker.write(store)
    return list(read_records(store, tables, [clip["clip_id"] for clip in maker.clips]))


def test_only_what_was_measured_is_said(tmp_path: Path) -> None:
    maker = ClipMaker()
    maker.add(tags=("nature",), exposure={"mean_luma": 20.0}, motion={"speed": 1.0})
    (record,) = records_of(maker, tmp_path)
    caption = measured_caption(record, CaptionConfig())
    assert [getattr(caption, name) for name in VLM_FIELDS] == [None] * 7
    assert (caption.captioner, caption.camera_movement) == ("measured", "pan_left")
    assert caption.source_tags == ("nature",)
    assert caption.quality_tags == ("sharp", "dark", "little motion")


@pytest.mark.parametrize(("confidence", "said"), [(0.59, None), (0.6, "pan_left")])
def test_the_camera_is_named_only_when_the_classifier_is_sure(
    tmp_path: Path, confidence: float, said: str | None
) -> None:
    maker = ClipMaker()
    maker.add(camera={"confidence": confidence})
    (record,) = records_of(maker, tmp_path)
    assert measured_caption(record, CaptionConfig()).camera_movement == said


def test_a_clip_without_scores_gets_an_empty_caption_and_no_guess(tmp_path: Path) -> None:
    maker = ClipMaker()
    maker.add(without=["camera", "clarity", "exposure", "motion", "crop"])
    (record,) = records_of(maker, tmp_path)
    assert measured_caption(record, CaptionConfig()) == StructuredCaption(captioner="measured")


class NumberReader:
    """Reads the frame numbers out of the pictures; refuses the clip that starts at zero."""

    name = "reader-1"
    num_frames = 3

    def setup(self) -> None: ...

    def describe(self, requests: Sequence[CaptionRequest]) -> list[StructuredCaption | Failure]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: CaptionRequest) -> StructuredCaption | Failure:
        numbers = [read_number(image) for image in request.frames_THWC]
        if numbers[0] < 10:
            return Failure(error_class="refused", error="refused")
        return StructuredCaption(captioner=self.name, short_description=str(numbers))


def test_a_backend_sees_spread_frames_and_writes_words_only(tmp_path: Path) -> None:
    path = write_video(tmp_path / "numbers.mp4", numbered_frames(60))
    maker = ClipMaker()
    for start in (0, 30):
        maker.add(uri=path.as_uri(), start=start, num_frames=30, size_WH=(64, 32))
    maker.add(source="lost", uri=(tmp_path / "lost.mp4").as_uri(), num_frames=30)
    records = records_of(maker, tmp_path / "out")
    (part,) = caption_parts(records, set(), 10)
    worker = CaptionWorker(
        str(tmp_path / "out"), "f", CaptionConfig(), MediaLimits(), make_backend=NumberReader
    )
    worker.setup()
    report = worker.process(part)
    assert (report.num_ok, report.num_failed) == (1, 2)
    assert report.reasons == {"refused": 1, "not_found": 1}

    table = caption_table(Store(str(tmp_path / "out")), "f")
    (caption,) = read_captions(table).values()
    assert caption.short_description == "[35, 45, 55]"
    assert (caption.captioner, caption.camera_movement) == ("reader-1", "pan_left")
    assert list(caption_parts(records, table.done_items("clip_id"), 10)) == []
