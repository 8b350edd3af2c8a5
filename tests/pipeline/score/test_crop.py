import pytest

from pipeline.score.config import CropConfig, OverlaysConfig
from pipeline.score.crop import bars_of, clean_crop, obstacles_of
from schemas.scores import (
    FULL_PICTURE,
    BorderScore,
    Box,
    Overlay,
    OverlayScore,
    TextScore,
    TextTrack,
)

SIZE = (720, 1280)
NO_BORDERS = BorderScore(left_px=0, right_px=0, top_px=0, bottom_px=0)
CORNER = OverlaysConfig().corner_share


def crop(borders: BorderScore, obstacles: list[Box], size: tuple[int, int] = SIZE) -> Box:
    return clean_crop(size, borders, obstacles, CropConfig())


def box(left: float, top: float, right: float, bottom: float) -> Box:
    return Box(left=left, top=top, right=right, bottom=bottom)


def texts(*tracks: TextTrack, band: Box | None = None) -> TextScore:
    return TextScore(
        model_id="t", mean_area=0, max_area=0, persistent_area=0, subtitle_band=band,
        tracks=tracks, num_frames=6,
    )  # fmt: skip


def overlays(*found: Overlay, comparable: bool = True) -> OverlayScore:
    return OverlayScore(model_id="o", overlays=found, area=0, comparable=comparable, num_frames=16)


def test_a_clean_picture_stays_whole_even_at_odd_sizes() -> None:
    assert crop(NO_BORDERS, []) == FULL_PICTURE
    assert crop(NO_BORDERS, [], (405, 719)) == FULL_PICTURE


def test_the_crop_lies_above_a_subtitle_band() -> None:
    result = crop(NO_BORDERS, [box(0.2, 0.82, 0.8, 0.9)])
    assert (result.left, result.top, result.right) == (0, 0, 1)
    assert 0.80 < result.bottom <= 0.82


def test_borders_and_a_logo_inside_them_are_left_outside() -> None:
    borders = BorderScore(left_px=0, right_px=0, top_px=91, bottom_px=90)
    logo = box(0.88, 0.16, 0.95, 0.22)
    result = crop(borders, [logo])
    assert result.top * 720 >= 91
    assert result.bottom * 720 <= 630
    assert min(result.right, logo.right) <= max(result.left, logo.left) or result.top >= logo.bottom
    for value, side in zip(
        (result.left, result.right, result.top, result.bottom), (1280, 1280, 720, 720), strict=True
    ):
        assert (value * side) % 2 == pytest.approx(0, abs=1e-6)


def test_where_too_little_would_stay_only_the_borders_go() -> None:
    borders = BorderScore(left_px=0, right_px=0, top_px=60, bottom_px=60)
    result = crop(borders, [box(0.45, 0.45, 0.55, 0.55)])
    assert result == box(0, 60 / 720, 1, 660 / 720)


def test_a_pillarboxed_portrait_is_cut_to_the_portrait() -> None:
    borders = BorderScore(left_px=438, right_px=438, top_px=0, bottom_px=0)
    assert crop(borders, []) == box(438 / 1280, 0, 842 / 1280, 1)


def test_corner_logos_are_obstacles_and_center_marks_are_not() -> None:
    logo = Overlay(kind="corner_logo", box=box(0.9, 0.02, 0.98, 0.1), presence=1, confidence=1)
    mark = Overlay(kind="watermark", box=box(0.4, 0.4, 0.6, 0.6), presence=1, confidence=1)
    band = box(0.2, 0.85, 0.8, 0.92)
    assert obstacles_of(texts(band=band), overlays(logo, mark), CORNER) == [logo.box, band]


def test_resting_corner_text_counts_only_where_the_picture_moves() -> None:
    track = TextTrack(box=box(0.02, 0.02, 0.2, 0.08), presence=1, changes=False, text="CHANNEL")
    assert obstacles_of(texts(track), overlays(), CORNER) == [track.box]
    assert obstacles_of(texts(track), overlays(comparable=False), CORNER) == []


def test_bars_go_even_where_an_obstacle_has_to_stay() -> None:
    fills = [box(0, 0, 0.28, 1), box(0.72, 0, 1, 1)]
    center = box(0.3, 0.4, 0.7, 0.6)
    found = [Overlay(kind="blurred_fill", box=fill, presence=1, confidence=1) for fill in fills] + [
        Overlay(kind="banner", box=center, presence=1, confidence=1)
    ]
    score = overlays(*found)
    assert bars_of(score) == fills
    assert obstacles_of(texts(), score, CORNER) == [center]
    result = clean_crop(SIZE, NO_BORDERS, [center], CropConfig(), fills)
    assert (result.top, result.bottom) == (0, 1)
    assert result.left == pytest.approx(0.285, abs=2 / 1280)
    assert result.right == pytest.approx(0.715, abs=2 / 1280)


def test_a_bar_that_the_measured_borders_know_is_not_cut_again() -> None:
    borders = BorderScore(left_px=0, right_px=0, top_px=90, bottom_px=0)
    result = clean_crop(SIZE, borders, [], CropConfig(), [box(0, 0, 1, 0.13)])
    assert result.top == 90 / 720
    result = clean_crop(SIZE, NO_BORDERS, [], CropConfig(), [box(0, 0, 1, 0.13)])
    assert 0.13 <= result.top < 0.14


def test_an_inset_is_cut_away_and_a_collage_stays() -> None:
    inset = Overlay(kind="picture_in_picture", box=box(0.75, 0.7, 1, 1), presence=1, confidence=1)
    cell = Overlay(kind="collage", box=box(0, 0, 0.5, 1), presence=1, confidence=1)
    assert obstacles_of(texts(), overlays(inset, cell), CORNER) == [inset.box]
    assert crop(NO_BORDERS, [inset.box]).area > 0.65
