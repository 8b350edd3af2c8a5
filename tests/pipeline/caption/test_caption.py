from pathlib import Path

import pytest

from pipeline.caption.answer import Words
from pipeline.caption.config import CaptionConfig, EndpointConfig
from pipeline.caption.description import captioner_name
from pipeline.caption.measured import measured_caption
from pipeline.caption.worker import (
    CaptionWorker,
    caption_fingerprint,
    caption_parts,
    caption_table,
)
from pipeline.pack.select import read_captions
from pipeline.storage import Store
from schemas.caption import VLM_FIELDS, StructuredCaption
from schemas.status import Failure
from tests.pipeline.caption.clips import records_of
from tests.pipeline.tier.tables import ClipMaker

WORDS = Words(
    short_description="A dog runs over a wet lawn.",
    dense_description="A brown dog runs over a wet lawn and jumps at a ball that rolls away.",
    background="A hedge and a white house.",
    style="realistic",
    shot_type="medium shot",
    lighting="Soft light from a gray sky.",
    atmosphere="cheerful",
)


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


def test_words_and_measurements_become_one_caption_and_failures_stay_failures(
    tmp_path: Path,
) -> None:
    maker = ClipMaker()
    described, refused = maker.add(), maker.add(start=200)
    records = records_of(maker, tmp_path)
    config = CaptionConfig(captioner="endpoint", endpoint=EndpointConfig(model="seer"))
    failure = Failure(error_class="caption_refusal", error="I cannot")
    descriptions: dict[str, Words | Failure] = {described: WORDS, refused: failure}
    (part,) = caption_parts(records, set(), 10, descriptions=descriptions)
    report = CaptionWorker(str(tmp_path), "f", config).process(part)
    assert (report.num_ok, report.num_failed) == (1, 1)
    assert report.reasons == {"caption_refusal": 1}

    table = caption_table(Store(str(tmp_path)), "f")
    captions = read_captions(table)
    assert list(captions) == [described]
    caption = captions[described]
    assert {name: getattr(caption, name) for name in VLM_FIELDS} == WORDS.model_dump()
    assert (caption.captioner, caption.camera_movement) == (captioner_name(config), "pan_left")
    assert caption.captioner.startswith("endpoint:seer@unknown+")
    assert list(caption_parts(records, table.done_items("clip_id"), 10)) == []


def test_captions_change_with_scores_and_descriptions_and_not_with_the_pool() -> None:
    config = CaptionConfig()
    base = caption_fingerprint(config, {"motion": "1", "clips": "1"}, None)
    assert caption_fingerprint(config, {"motion": "1", "clips": "2"}, None) == base
    assert caption_fingerprint(config, {"motion": "2", "clips": "1"}, None) != base
    assert caption_fingerprint(config, {"motion": "1", "clips": "1"}, "d") != base
