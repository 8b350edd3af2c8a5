"""Dissolves and wipes are mixtures of two pictures; motion and changing light are none."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.split.boundaries import find_boundaries
from pipeline.split.config import EvidenceConfig
from pipeline.split.evidence import Evidence
from pipeline.split.mixing import merged, mixed_window
from pipeline.split.witnesses import _structure_likeness
from tests.media_files import moving_frames, texture

HEIGHT, WIDTH = 36, 64
FIRST, SECOND = (texture(HEIGHT, WIDTH, seed=seed).astype(float) for seed in (1, 2))


def found(frames: NDArray[np.float64]) -> int | None:
    noise = np.random.default_rng(0).normal(0, 1, frames.shape)
    noisy = np.clip(np.round(frames + noise), 0, 255).astype(np.uint8)
    return mixed_window(list(noisy), _structure_likeness)


def dissolve(num_frames: int) -> NDArray[np.float64]:
    share = np.linspace(0, 1, num_frames)[:, None, None, None]
    return FIRST * (1 - share) + SECOND * share


@pytest.mark.parametrize("num_frames", [9, 13, 25, 45])
def test_a_dissolve_is_a_mixture_at_every_length(num_frames: int) -> None:
    assert found(dissolve(num_frames)) is not None


def test_a_wipe_is_a_mixture_pixel_by_pixel() -> None:
    edge = np.linspace(0, WIDTH, 25)[:, None, None, None]
    is_second = np.arange(WIDTH)[None, None, :, None] < edge
    assert found(np.where(is_second, SECOND, FIRST)) is not None


def test_motion_light_rest_and_cuts_are_no_mixtures() -> None:
    assert found(moving_frames(45, HEIGHT, WIDTH, step_px=3).astype(float)) is None
    assert found(FIRST * np.linspace(0.3, 1, 25)[:, None, None, None]) is None
    assert found(np.stack([FIRST] * 25)) is None
    assert found(np.stack([FIRST] * 12 + [SECOND] * 13)) is None
    assert found(np.linspace(0, 1, 25)[:, None, None, None] * SECOND) is None  # fades have rules


def test_windows_that_overlap_are_one() -> None:
    assert merged([(8, 20), (4, 12), (30, 38), (20, 24)]) == [(4, 24), (30, 38)]


def evidence(**values: object) -> Evidence:
    """Forty quiet frames of which nobody is sure."""
    quiet: dict[str, object] = {
        name: np.full(40, value, np.float32)
        for name, value in (("content", 1), ("likeness", np.nan), ("luma_mean", 120),
                            ("luma_sd", 40), ("sharpness", 1), ("cut", 0), ("transition", 0))
    }  # fmt: skip
    rest = {"time_s": np.arange(40) / 25, "proposals": (), "mixed": (), "num_looks": 0}
    return Evidence(**(quiet | rest | {"error": None} | values))  # type: ignore[arg-type]


def at_20(value: float, other: float) -> NDArray[np.float32]:
    values = np.full(40, other, np.float32)
    values[20] = value
    return values


def accepted(found: Evidence) -> list[tuple[str, int, int]]:
    boundaries = find_boundaries(found, EvidenceConfig())
    return [(b.kind, b.first_frame, b.last_frame) for b in boundaries if b.rejected is None]


def test_a_mixture_is_a_boundary_unless_another_one_lies_there() -> None:
    assert accepted(evidence(mixed=((8, 20), (12, 24)))) == [("dissolve", 8, 24)]
    cut = {"content": at_20(60, 1), "likeness": at_20(0.1, np.nan), "proposals": (20,)}
    assert accepted(evidence(mixed=((12, 24),), cut=at_20(0.9, 0), **cut)) == [("cut", 20, 20)]


@pytest.mark.parametrize(("usual", "likeness", "is_cut"), [
    (1, 0.8, True), (6, 0.8, False), (1, 0.95, False),
])  # fmt: skip
def test_a_change_that_stands_alone_is_a_cut_against_the_network(
    usual: float, likeness: float, is_cut: bool
) -> None:
    values = {"content": at_20(30, usual), "likeness": at_20(likeness, np.nan)}
    assert accepted(evidence(proposals=(20,), **values)) == [("cut", 20, 20)] * is_cut


@pytest.mark.parametrize(("likeness", "probability", "is_cut"), [
    (0.95, 0.6, False), (0.95, 0.95, True), (0.5, 0.6, True),
])  # fmt: skip
def test_a_flash_that_the_network_takes_for_a_cut_is_none_unless_it_is_sure(
    likeness: float, probability: float, is_cut: bool
) -> None:
    values = {"content": at_20(50, 1), "likeness": at_20(likeness, np.nan)}
    assert bool(accepted(evidence(cut=at_20(probability, 0), **values))) == is_cut
