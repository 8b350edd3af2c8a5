import pytest
from pydantic import ValidationError

from schemas.caption import StructuredCaption
from schemas.shard import Funnel, FunnelStep
from schemas.tier import Bucket, parse_tier


@pytest.mark.parametrize("name", ["f065_256x256", "f001_512x512", "f129_720x1280"])
def test_a_bucket_is_its_name(name: str) -> None:
    assert Bucket.from_name(name).name == name


@pytest.mark.parametrize("name", ["f064_256x256", "f065_250x256", "65_256x256", "f065_256x256 "])
def test_other_shapes_are_not_buckets(name: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has its own message
        Bucket.from_name(name)


@pytest.mark.parametrize(
    ("text", "tier"), [("3", "tier-3"), ("tier-3", "tier-3"), ("image-1",) * 2]
)
def test_a_tier_may_be_named_by_its_number(text: str, tier: str) -> None:
    assert parse_tier(text) == tier


def test_an_unknown_tier_is_refused_with_the_names() -> None:
    with pytest.raises(ValueError, match="no tier '6'; choose 1-5, image-1, image-2 or all"):
        parse_tier("6")


def test_a_funnel_that_does_not_add_up_is_refused() -> None:
    step = FunnelStep(reason="duplicate", num_clips=2)
    with pytest.raises(ValidationError, match="5 clips, 6 accounted"):
        Funnel(num_clips=5, num_packed=4, rejected=(step,), failed=())


def test_a_caption_becomes_sentences_in_the_order_of_its_fields() -> None:
    caption = StructuredCaption(
        captioner="x",
        short_description="A dog runs",
        lighting="Low sun.",
        camera_movement="pan_left",
        quality_tags=("sharp", "dark"),
    )
    expected = "A dog runs. Low sun. Camera movement: pan left. sharp, dark."
    assert caption.to_prompt() == expected
    assert "captioner" not in caption.to_json()
    assert StructuredCaption(captioner="x").to_prompt() == ""
