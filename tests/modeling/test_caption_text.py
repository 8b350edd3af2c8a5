import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.caption_text import CaptionTextConfig, caption_text, drawn_form
from schemas.caption import StructuredCaption

FULL = StructuredCaption(
    captioner="endpoint:model",
    short_description="A red fox runs over snow",
    dense_description="A red fox runs over snow. It stops at a log. It looks back.",
    background="A pine forest",
    style="documentary",
    shot_type="medium shot",
    lighting="soft morning light",
    atmosphere="calm",
    camera_movement="pan_left",
    source_tags=("film", "4k"),
    quality_tags=("sharp",),
)
MEASURED = StructuredCaption(
    captioner="measured", camera_movement="zoom_in", quality_tags=("soft focus", "bright")
)
NUM = 3000
words = st.none() | st.text("ab c.!", min_size=1, max_size=20).map(str.strip).filter(bool)


def texts(caption: StructuredCaption, config: CaptionTextConfig, num: int = NUM) -> list[str]:
    return [caption_text(caption, config, seed=0, key=str(n), step=5) for n in range(num)]


def test_the_distribution_of_forms_and_lengths() -> None:
    found = texts(FULL, CaptionTextConfig())
    prompt = FULL.to_prompt()
    kinds = Counter(
        "none"
        if not text
        else "canonical"
        if text == prompt
        else "json"
        if text.startswith("{")
        else "plain"
        for text in found
    )
    shares = {kind: num / NUM for kind, num in kinds.items()}
    assert shares["none"] == pytest.approx(0.1, abs=0.02)
    assert shares["canonical"] == pytest.approx(0.9 * 0.2, abs=0.03)
    assert shares["json"] == pytest.approx(0.9 * 0.1, abs=0.02)
    lengths = sorted(len(text) for text in found if text)
    deciles = [lengths[len(lengths) * tenth // 10] for tenth in range(1, 10)]
    assert deciles[0] < 50  # a few words
    assert deciles[-1] > 180  # the whole caption
    assert len(set(found)) > 0.35 * NUM  # the canonical and empty texts alone repeat
    assert max(Counter(text for text in found if text != prompt and text).values()) < 0.05 * NUM


def test_mixed_texts_hold_every_number_of_fields_alike() -> None:
    config = CaptionTextConfig(
        drop_text=0, canonical=0, short=0, dense=0, json_form=0, label_share=0, cut_dense_share=0
    )
    marks = ("snow.", "log.", "forest", "documentary", "medium", "light", "calm", "film", "sharp")
    numbers: Counter[int] = Counter()
    orders = set()
    for text in texts(FULL, config):
        text = text.replace("A red fox runs over snow. It stops", "It stops")
        places = [text.find(mark) for mark in marks]
        has_camera = "amera" in text
        numbers[sum(place >= 0 for place in places) + has_camera] += 1
        orders.add(0 <= places[2] < places[3])
    assert set(numbers) == set(range(1, 11))
    assert all(abs(num / NUM - 0.1) < 0.03 for num in numbers.values())
    assert orders == {True, False}


def test_each_form_is_what_it_says() -> None:
    def only(form: str, **more: float) -> set[str]:
        weights = dict.fromkeys(("canonical", "short", "dense", "mixed", "json_form"), 0.0)
        config = {**weights, "drop_text": 0.0, "camera_share": 0.0, "tags_share": 0.0, form: 1.0}
        return set(texts(FULL, CaptionTextConfig.model_validate({**config, **more}), 300))

    assert only("canonical") == {FULL.to_prompt()}
    assert only("short") == {"A red fox runs over snow."}
    assert only("dense", cut_dense_share=0) == {FULL.dense_description}
    assert only("dense", cut_dense_share=1) == {
        "A red fox runs over snow.",
        "A red fox runs over snow. It stops at a log.",
        "A red fox runs over snow. It stops at a log. It looks back.",
    }
    assert only("short", camera_share=1, camera_sentence_share=1) == {
        "A red fox runs over snow. The camera moves to the left."
    }
    assert only("short", tags_share=1) == {"A red fox runs over snow. film, 4k. sharp."}
    fields = FULL.model_dump(mode="json")
    for text in only("json_form", cut_dense_share=0):
        assert all(fields[name] == value for name, value in json.loads(text).items())
    labeled = only("mixed", label_share=1)
    assert any("Lighting: soft morning light." in text for text in labeled)


@given(
    st.builds(
        StructuredCaption,
        captioner=st.just("test"),
        short_description=words,
        dense_description=words,
        lighting=words,
        camera_movement=st.none() | st.sampled_from(["static_shot", "tilt_up"]),
        quality_tags=st.lists(st.sampled_from(["sharp", "bright"])).map(tuple),
    ),
    st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_any_caption_gives_text_from_its_own_words(caption: StructuredCaption, step: int) -> None:
    text = caption_text(caption, CaptionTextConfig(drop_text=0), seed=1, key="a", step=step)
    assert "None" not in text
    assert bool(text) == bool(caption.to_prompt())
    assert text == text.strip()


def test_a_measured_caption_gives_camera_and_tags() -> None:
    found = texts(MEASURED, CaptionTextConfig(drop_text=0))
    assert all(found)
    plain = {text for text in found if not text.startswith("{")}
    assert plain == {
        "The camera zooms in.",
        "Camera movement: zoom in.",
        "soft focus, bright.",
        "The camera zooms in. soft focus, bright.",
        "Camera movement: zoom in. soft focus, bright.",
        "soft focus, bright. The camera zooms in.",
        "soft focus, bright. Camera movement: zoom in.",
    }


def test_an_empty_caption_gives_no_text() -> None:
    empty = StructuredCaption(captioner="measured")
    assert set(texts(empty, CaptionTextConfig(drop_text=0), 200)) == {""}


def test_the_text_hangs_on_seed_key_and_step_alone() -> None:
    def make(number: int) -> str:
        return caption_text(FULL, CaptionTextConfig(), seed=number % 3, key="a", step=number)

    alone = [make(number) for number in range(300)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(make, range(300))) == alone
    config = CaptionTextConfig()
    for seed, key, step in ((1, "a", 0), (0, "b", 0), (0, "a", 100)):
        others = [caption_text(FULL, config, seed=seed, key=key, step=step + n) for n in range(9)]
        mine = [caption_text(FULL, config, seed=0, key="a", step=n) for n in range(9)]
        assert others != mine


def test_forms_without_weights_are_canonical() -> None:
    config = CaptionTextConfig(canonical=0, short=0, dense=0, mixed=0, json_form=0)
    assert drawn_form(config, 0.7) == "canonical"
    assert drawn_form(CaptionTextConfig(), 0.0) == "canonical"
    assert drawn_form(CaptionTextConfig(), 0.999999) == "json"
