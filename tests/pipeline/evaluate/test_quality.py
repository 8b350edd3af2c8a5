"""Degradations grow with their level, and the figures count what they say."""

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.evaluate.degradations import KINDS, NUM_LEVELS, motion_blur
from pipeline.evaluate.figures import OURS
from pipeline.evaluate.motion import PHOTO_FOLDER
from pipeline.evaluate.quality import NIQE, SHARPNESS, evaluate_quality, share_in_order
from schemas.model_card import ModelCard
from tests.media_files import texture


def detailed(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Shading with detail of single pixels."""
    fine = np.random.default_rng(seed).normal(0, 15, (height, width, 1))
    return np.clip(texture(height, width, seed=seed) * 0.7 + 40 + fine, 0, 255).astype(np.uint8)


def drifting() -> np.ndarray:
    picture = detailed(96, 140)
    return np.stack([picture[:, 2 * k : 2 * k + 128] for k in range(4)])


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_level_is_farther_from_the_picture(kind: str) -> None:
    frames = drifting()
    step = KINDS[kind]
    assert len(step.amounts) == NUM_LEVELS
    errors = [0.0]
    for amount in step.amounts:
        worse = step.apply(frames, amount)
        assert worse.shape == frames.shape
        assert worse.dtype == np.uint8
        errors.append(float(np.abs(worse.astype(float) - frames).mean()))
    assert np.diff(errors).min() > 0, errors


@pytest.mark.parametrize(("kind", "amount"), [("defocus", 8.0), ("motion_blur", 21.0)])
def test_blurs_have_the_stated_sigma(kind: str, amount: float) -> None:
    block = np.zeros((1, 101, 101, 3), np.uint8)
    block[:, 40:61, 40:61] = 255
    before, after = (spread(f[0, ..., 0]) for f in (block, KINDS[kind].apply(block, amount)))
    # Variances add; a disc has r^2 / 4 on either axis, a stroke n^2 / 12 along itself.
    sigma_px = KINDS[kind].sigma_px
    assert sigma_px is not None
    axes = 2 if kind == "defocus" else 1
    assert after - before == pytest.approx(axes * sigma_px(amount) ** 2, rel=0.12)


def spread(image: np.ndarray) -> float:
    """Variance over x plus over y, px^2."""
    weights = image / image.sum()
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return float(sum((weights * axis**2).sum() - (weights * axis).sum() ** 2 for axis in (x, y)))


def test_a_stroke_leaves_what_runs_along_it() -> None:
    rows = np.zeros((1, 64, 64, 3), np.uint8)
    rows[:, ::8] = 255
    assert np.abs(motion_blur(rows, 13, 0.0)[:, :, 8:-8].astype(int) - rows[:, :, 8:-8]).max() <= 1
    assert motion_blur(rows, 13, 90.0)[:, 8:-8].std() < 40


def test_share_in_order() -> None:
    assert share_in_order([3.0, 2.0, 1.0]) == 1.0
    assert share_in_order([1.0, 2.0, 3.0]) == 0.0
    assert share_in_order([1.0, 1.0]) == 0.5


def brightness_network(path: Path) -> str:
    """It knows nothing about wear."""
    card = ModelCard(
        kind="quality", model_id="stand-in", interface_version=1, num_frames=4, height=64,
        width=64, resize="native_parts", config_sha256="",
    )  # fmt: skip
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", 4, 64, 64, 3])
    output = helper.make_tensor_value_info("quality", TensorProto.FLOAT, ["n"])
    nodes = [
        helper.make_node("Cast", ["frames"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["x", "axes"], ["quality"], keepdims=0),
    ]
    axes = helper.make_tensor("axes", TensorProto.INT64, [4], [1, 2, 3, 4])
    graph = helper.make_graph(nodes, "g", [frames], [output], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, card.to_metadata())
    onnx.save(model, str(path))
    return f"path:{path}"


def test_what_knows_blur_orders_it_and_what_does_not_does_not(tmp_path: Path) -> None:
    photos = tmp_path / PHOTO_FOLDER
    photos.mkdir(parents=True)
    for number in range(2):
        cv2.imwrite(str(photos / f"{number}.png"), detailed(260, 400, seed=number))
    figures = evaluate_quality(
        tmp_path,
        brightness_network(tmp_path / "q.onnx"),
        max_clips=0,
        kinds=("gaussian_blur", "defocus"),
    )
    found = {(f.measure, f.method): f for f in figures}
    assert found["order, gaussian_blur", SHARPNESS].value == 1.0
    assert found["order, all kinds", SHARPNESS].value == 1.0
    assert found["order, all kinds", OURS].value < 0.9
    assert found["order, all kinds", OURS].count == 2
    # Each untouched source against the other one, in both kinds: one share a source.
    assert found["untouched above plainly worse, other source", SHARPNESS].count == 2
    assert {method for _, method in found} == {OURS, NIQE, SHARPNESS}
