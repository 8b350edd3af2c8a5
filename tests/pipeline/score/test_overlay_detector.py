import json
import math
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.onnx_model import OnnxModel, WeightsError
from pipeline.score.config import OverlaysConfig
from pipeline.score.overlay_detector import Hit, OverlayDetector, voted
from pipeline.score.overlays import OverlaysStage
from schemas.model_card import ModelCard
from schemas.overlay_network import OVERLAY_KINDS, OVERLAY_THRESHOLDS_KEY
from schemas.scores import Box, OverlayKind, OverlayScore
from schemas.status import Failure
from tests.pipeline.score.clips import clip_of, picture

CORNER, NEAR = (0.8, 0.05, 0.9, 0.15), (0.81, 0.05, 0.91, 0.15)
LOGO, SUBTITLE = OVERLAY_KINDS.index("corner_logo"), OVERLAY_KINDS.index("subtitle")


def constant_network(
    path: Path,
    boxes: list[tuple[float, float, float, float]],
    scores: list[float],
    classes: list[int],
    *,
    thresholds: str | None = None,
) -> OnnxModel:
    """Finds the same boxes in every frame."""
    card = ModelCard(
        kind="overlay", model_id="constant", interface_version=1, num_frames=1, height=32,
        width=32, resize="stretch", config_sha256="",
    )  # fmt: skip
    values: Mapping[str, np.ndarray] = {
        "boxes": np.array([boxes], np.float32),
        "scores": np.array([scores], np.float32),
        "classes": np.array([classes], np.int64),
    }
    frames = helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", 1, 32, 32, 3])
    outputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in values.items()
    ]
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
        for name, value in values.items()
    ]
    graph = helper.make_graph(nodes, "g", [frames], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    metadata = card.to_metadata()
    if thresholds is not None:
        metadata[OVERLAY_THRESHOLDS_KEY] = thresholds
    helper.set_model_props(model, metadata)
    onnx.save(model, str(path))
    return OnnxModel(f"path:{path}", kind="overlay")


def hit(frame: int, kind: OverlayKind, box: tuple[float, float, float, float]) -> Hit:
    left, top, right, bottom = box
    return Hit(frame, kind, Box(left=left, top=top, right=right, bottom=bottom), 0.8)


def test_boxes_below_the_threshold_of_their_kind_and_repetitions_do_not_count(
    tmp_path: Path,
) -> None:
    network = constant_network(
        tmp_path / "a.onnx",
        [NEAR, CORNER, (0.2, 0.8, 0.8, 0.9), CORNER],
        [0.5, 0.7, 0.5, 0.65],
        [LOGO, LOGO, SUBTITLE, OVERLAY_KINDS.index("banner")],
        thresholds=json.dumps({"subtitle": 0.6, "corner_logo": 0.3}),
    )
    detector = OverlayDetector(network, OverlaysConfig(min_confidence=0.64))
    overlays, num_frames = detector.find(clip_of([picture(96, 128)] * 24))
    assert num_frames == 8
    assert sorted(o.kind for o in overlays) == ["banner", "corner_logo"]
    (logo,) = (o for o in overlays if o.kind == "corner_logo")
    assert logo.box.left == pytest.approx(0.8)
    assert logo.confidence == pytest.approx(0.7)
    assert logo.presence == 1


def test_all_boxes_above_a_limit_of_ones_own_can_be_had(tmp_path: Path) -> None:
    network = constant_network(tmp_path / "a.onnx", [CORNER, NEAR], [0.7, 0.2], [LOGO, SUBTITLE])
    detector = OverlayDetector(network, OverlaysConfig(min_confidence=0.6))
    clip = clip_of([picture(96, 128)] * 24)
    hits, num_frames = detector.hits(clip)
    assert [hit.kind for hit in hits] == ["corner_logo"] * num_frames
    assert detector.threshold("subtitle") == 0.6
    assert len(detector.hits(clip, 0.1)[0]) == 2 * num_frames


def test_a_logo_in_few_frames_is_none_and_one_in_most_lies_at_the_median() -> None:
    rare = [hit(0, "corner_logo", CORNER), hit(3, "corner_logo", CORNER)]
    assert voted(rare, 8, 0.5) == ()
    often = [hit(i, "corner_logo", NEAR if i == 2 else CORNER) for i in range(5)]
    (logo,) = voted(often, 8, 0.5)
    assert logo.presence == 5 / 8
    assert logo.box.left == pytest.approx(0.8)


def test_two_hits_of_one_frame_are_one_vote() -> None:
    hits = [hit(0, "watermark", CORNER), hit(0, "watermark", NEAR), hit(1, "watermark", CORNER)]
    assert voted(hits, 4, 0.6) == ()


def test_subtitles_of_one_row_belong_together_however_long() -> None:
    lines = [hit(1, "subtitle", (0.3, 0.84, 0.7, 0.9)), hit(4, "subtitle", (0.45, 0.85, 0.55, 0.9))]
    (band,) = voted(lines, 8, 0.5)
    assert (band.box.left, band.box.top, band.box.right) == pytest.approx((0.3, 0.84, 0.7))
    assert voted(lines[:1], 8, 0.5) == ()


@pytest.mark.parametrize("text", ["[]", "{", '{"banner": "often"}'])
def test_thresholds_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    network = constant_network(tmp_path / "a.onnx", [CORNER], [0.9], [0], thresholds=text)
    with pytest.raises(WeightsError, match="not a JSON object of numbers"):
        OverlayDetector(network, OverlaysConfig())


def test_a_class_that_no_kind_has_is_an_error(tmp_path: Path) -> None:
    network = constant_network(tmp_path / "a.onnx", [CORNER], [0.9], [99])
    with pytest.raises(ValueError, match="class 99"):
        OverlayDetector(network, OverlaysConfig()).find(clip_of([picture(96, 128)]))


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_not_an_empty_picture(tmp_path: Path, score: float) -> None:
    constant_network(tmp_path / "a.onnx", [CORNER], [score], [0])
    stage = OverlaysStage(OverlaysConfig(model=f"path:{tmp_path / 'a.onnx'}"))
    stage.setup()
    (result,) = stage.process([clip_of([picture(96, 128)])])
    assert result == Failure(error_class="not_finite", error="constant: not finite in scores")


def test_the_shipped_network_finds_bars_and_nothing_in_a_plain_picture() -> None:
    stage = OverlaysStage(OverlaysConfig(model="overlays"))
    stage.setup()
    coarse = np.random.default_rng(0).integers(60, 200, (4, 7, 3)).astype(np.uint8)
    plain = np.asarray(cv2.resize(coarse, (640, 360), interpolation=cv2.INTER_CUBIC), np.uint8)
    barred = plain.copy()
    barred[:50] = barred[-50:] = 0
    results = stage.process([clip_of([plain] * 2), clip_of([barred] * 2)])
    clean, bars = (r for r in results if isinstance(r, OverlayScore))
    assert clean.model_id == "overlay-net-3"
    assert clean.overlays == ()
    assert [o.kind for o in bars.overlays] == ["border", "border"]
    assert bars.overlays[0].box.bottom == pytest.approx(50 / 360, abs=0.03)
    assert bars.overlays[1].box.top == pytest.approx(310 / 360, abs=0.03)
