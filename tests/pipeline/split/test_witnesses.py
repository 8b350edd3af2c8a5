"""The witnesses against slow or outside references."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scenedetect import AdaptiveDetector, ContentDetector, FrameTimecode

from pipeline.split.config import EvidenceConfig
from pipeline.split.sharpness import row_sharpness
from pipeline.split.transnet import TransNetWitness, runs_above
from pipeline.split.witnesses import (
    ScoredAdaptiveDetector,
    SharedContentDetector,
    is_peak,
    likeness_of,
)


def smooth_noise(seed: int, height: int = 36, width: int = 64) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 4 + 4, width // 4 + 4, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((4, 4, 1), np.uint8))


def test_one_sweep_gives_the_scores_and_cuts_of_pyscenedetect() -> None:
    rng = np.random.default_rng(0)
    frames = [smooth_noise(int(index // 9))[:36, :64] for index in range(40)]
    noisy = [np.clip(f + rng.normal(0, 4, f.shape), 0, 255).astype(np.uint8) for f in frames]
    config = EvidenceConfig()
    ours = ScoredAdaptiveDetector(config)
    shared = SharedContentDetector(ours)
    stock_adaptive = AdaptiveDetector(
        adaptive_threshold=config.min_ratio, min_content_val=config.min_content, min_scene_len=1
    )
    stock_content = ContentDetector(min_scene_len=0)
    for index, image in enumerate(noisy):
        time = FrameTimecode(index, 25.0)
        assert ours.process_frame(time, image) == stock_adaptive.process_frame(time, image)
        assert shared.process_frame(time, image) == stock_content.process_frame(time, image)
        assert ours.content[-1] == pytest.approx(stock_adaptive._frame_score, rel=1e-5)


@pytest.mark.parametrize("shift", [0, 2, 4])
def test_a_displaced_picture_is_found_again_and_another_one_is_not(shift: int) -> None:
    wide = smooth_noise(1)
    first, second = wide[4:40, 4:68], wide[4 : 4 + 36, 4 + shift : 68 + shift]
    assert likeness_of(first, second) > 0.85
    assert likeness_of(first, smooth_noise(2)[:36, :64]) < 0.4


def test_other_colors_are_another_picture_even_with_the_same_structure() -> None:
    picture = smooth_noise(1)
    assert likeness_of(picture, picture) == pytest.approx(1.0, abs=1e-3)
    assert likeness_of(picture, np.roll(picture, 1, axis=2)) < 0.7


def test_of_equal_changes_the_first_is_the_peak() -> None:
    content = np.array([0, 1, 9, 9, 1, 0], np.float32)
    assert [is_peak(content, index) for index in range(1, 6)] == [False, True, False, False, False]


def test_blur_lowers_sharpness_and_contrast_alone_hardly_does() -> None:
    rng = np.random.default_rng(0)
    sharp = np.kron(rng.integers(60, 190, (45, 80)), np.ones((4, 4))).astype(np.uint8)
    blurred = np.mean([np.roll(sharp, s, axis=1) for s in range(-4, 5)], axis=0).astype(np.uint8)
    assert row_sharpness(blurred) < 0.7 * row_sharpness(sharp)
    assert row_sharpness(np.full((180, 320), 128, np.uint8)) == 0.0


def test_runs_end_at_the_first_frame_of_the_new_shot() -> None:
    cut = np.array([np.nan, 0.1, 0.8, 0.6, 0.2, np.nan, 0.7], np.float32)
    assert [(a, b) for a, b, _ in runs_above(cut, 0.5)] == [(2, 4), (6, 7)]


class FakeCard:
    num_frames, height, width = 100, 27, 48


class FakeModel:
    """Answers with the red level that it is shown, so that every answer names its frame."""

    card = FakeCard()

    def run(self, frames_NTHWC: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        assert frames_NTHWC.shape == (1, 100, 27, 48, 3)
        level = frames_NTHWC[..., 0].mean(axis=(2, 3)).astype(np.float32)
        return {"cut": level, "transition": level}


def look_at(num_frames: int, lookout: str, doubts: set[int]) -> TransNetWitness:
    witness = TransNetWitness(
        FakeModel(),  # type: ignore[arg-type]
        lookout,  # type: ignore[arg-type]
        lambda index: index - 6 if index - 6 in doubts else None,
    )
    for index in range(num_frames):
        image = np.zeros((54, 96, 3), np.uint8)
        image[..., 2] = index % 256
        witness.process_frame(FrameTimecode(index, 25.0), image)
    witness.post_process(FrameTimecode(max(0, num_frames - 1), 25.0))
    return witness


@pytest.mark.parametrize("num_frames", [1, 24, 50, 51, 99, 100, 230])
def test_looking_everywhere_answers_once_for_every_frame(num_frames: int) -> None:
    witness = look_at(num_frames, "all", set())
    assert list(witness.cut) == list(range(num_frames))
    assert witness.num_looks == -(-num_frames // 50)


def test_a_doubtful_frame_is_looked_at_with_its_surroundings_and_no_more() -> None:
    witness = look_at(240, "doubtful", {7, 120, 130})
    seen = [index for index, value in enumerate(witness.cut) if not np.isnan(value)]
    assert witness.num_looks == 2
    assert seen == [*range(42), *range(105, 155)]
    assert [witness.cut[index] for index in seen] == seen
