"""Files as exporters of YOLO, YOLOX and RT-DETR write them, with known boxes inside."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from pydantic import ValidationError

from pipeline.onnx_model import WeightsError
from pipeline.score.config import DetectorLayout, OverlaysConfig
from pipeline.score.foreign_detector import ForeignDetector
from pipeline.score.overlays import OverlaysStage
from schemas.overlay_network import OVERLAY_KINDS
from schemas.scores import OverlayScore
from tests.pipeline.score.clips import clip_of, picture

SIDE = 64
WIDE_HW = (60, 120)  # fits into the input as 32 x 64
KINDS = ("watermark", "", "corner_logo")
# Middle and size in shares of the picture, and scores of the three classes.
LOGO, MARK, OTHER = (0.25, 0.5, 0.25, 0.5), (0.5, 0.5, 0.5, 0.25), (0.8, 0.8, 0.1, 0.1)
SCORES = np.array([[0.1, 0.2, 0.9], [0.8, 0.0, 0.1], [0.0, 0.95, 0.1]], np.float32)
Outputs = Mapping[str, NDArray[np.float32]]


def boxes_in(height: int, width: int) -> NDArray[np.float32]:
    return np.array([LOGO, MARK, OTHER], np.float32) * np.array([width, height] * 2, np.float32)


def write(path: Path, outputs: Outputs, shape: tuple[int | str, ...] = (1, 3, SIDE, SIDE)) -> str:
    """Finds the same in every picture."""
    nodes = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
        for name, value in outputs.items()
    ]
    return save(path, nodes, {name: value.shape for name, value in outputs.items()}, shape)


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    outputs: Mapping[str, tuple[int, ...]],
    shape: tuple[int | str, ...] = (1, 3, SIDE, SIDE),
) -> str:
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()]
    graph = helper.make_graph(nodes, "g", [images], values)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), str(path))
    return f"path:{path}"


def outputs_of(layout: DetectorLayout, height: int, width: int) -> Outputs:
    """What such a network says of a picture that fills height x width of its input."""
    boxes = boxes_in(height, width)
    if layout == "yolo":
        return {"output0": np.concatenate([boxes, SCORES], axis=1).T[None]}
    if layout == "rtdetr":
        shares = boxes_in(1, 1)
        logits = np.log(np.clip(SCORES, 1e-6, 1) / (1 - np.clip(SCORES, 0, 0.999999)))
        return {"logits": logits[None], "pred_boxes": shares[None]}
    objects = np.ones((3, 1), np.float32)
    if layout == "yolox_decoded":
        return {"output": np.concatenate([boxes, objects, SCORES], axis=1)[None]}
    # Rows of the grids of strides 8, 16 and 32; the boxes answer at places 0, 9 and 70.
    rows = np.zeros((8 * 8 + 4 * 4 + 2 * 2, 5 + 3), np.float32)
    for box, scores, (row, x, y, stride) in zip(
        boxes, SCORES, ((0, 0, 0, 8), (9, 1, 1, 8), (70, 2, 1, 16)), strict=True
    ):
        middle = box[:2] / stride - (x, y)
        rows[row] = [*middle, *np.log(box[2:] / stride), 1.0, *scores]
    return {"output": rows[None]}


@pytest.mark.parametrize("layout", ["yolo", "yolox", "yolox_decoded", "rtdetr"])
def test_boxes_come_out_in_shares_with_their_kinds(layout: DetectorLayout, tmp_path: Path) -> None:
    name = write(tmp_path / "own.onnx", outputs_of(layout, 32, 64))
    detector = ForeignDetector(name, layout, KINDS)
    card = detector.card_for(WIDE_HW)
    assert (card.height, card.width) == ((64, 64) if layout == "rtdetr" else (32, 64))
    found = detector.run(np.zeros((1, 1, card.height, card.width, 3), np.uint8))
    kinds = [OVERLAY_KINDS[number] for number in found["classes"][0][:2]]
    assert kinds == ["corner_logo", "watermark"]
    np.testing.assert_allclose(found["scores"][0][:2], [0.9, 0.8], atol=1e-4)
    wanted = [[0.125, 0.25, 0.375, 0.75], [0.25, 0.375, 0.75, 0.625]]
    np.testing.assert_allclose(found["boxes"][0][:2], wanted, atol=1e-4)
    assert found["scores"][0][2:].max() <= 0.1 + 1e-5  # the class that is left out has 0.95


def test_a_configured_detector_scores_clips(tmp_path: Path) -> None:
    name = write(tmp_path / "own.onnx", outputs_of("yolo", 32, 64))
    config = OverlaysConfig.model_validate({"model": name, "layout": "yolo", "classes": KINDS})
    stage = OverlaysStage(config)
    stage.setup()
    [score] = stage.process([clip_of([picture(*WIDE_HW)] * 3)])
    assert isinstance(score, OverlayScore)
    assert score.model_id.startswith("own-")
    assert {overlay.kind for overlay in score.overlays} == {"corner_logo", "watermark"}
    [logo] = [overlay for overlay in score.overlays if overlay.kind == "corner_logo"]
    assert (logo.box.left, logo.box.bottom) == pytest.approx((0.125, 0.75), abs=1e-3)


@pytest.mark.parametrize(("layout", "wanted"), [("yolo", 200 / 255), ("yolox_decoded", 50.0)])
def test_pixels_have_the_scale_and_the_order_of_the_layout(
    layout: DetectorLayout, wanted: float, tmp_path: Path
) -> None:
    """The one score is the mean of the first channel: R of RGB, or B of BGR."""
    index = numpy_helper.from_array(np.array([0], np.int64), "index")
    box = numpy_helper.from_array(np.zeros((1, 1, 4), np.float32), "box")
    one = numpy_helper.from_array(np.ones((1, 1, 1), np.float32), "one")
    axes = numpy_helper.from_array(np.array([3], np.int64), "axes")
    constants = [
        helper.make_node("Constant", [], [each.name], value=each)
        for each in (index, box, one, axes)
    ]
    parts = ["box", "one", "score"] if layout == "yolox_decoded" else ["box", "score"]
    nodes = [
        *constants,
        helper.make_node("GlobalAveragePool", ["images"], ["means"]),
        helper.make_node("Gather", ["means", "index"], ["first"], axis=1),
        helper.make_node("Squeeze", ["first", "axes"], ["score"]),
        helper.make_node("Concat", parts, ["joined"], axis=2),
        helper.make_node("Transpose", ["joined"], ["turned"], perm=[0, 2, 1]),
    ]
    decoded = layout == "yolox_decoded"
    outputs = {"joined": (1, 1, 6)} if decoded else {"turned": (1, 5, 1)}
    detector = ForeignDetector(save(tmp_path / "m.onnx", nodes, outputs), layout, ("watermark",))
    frame = np.full((1, 1, SIDE, SIDE, 3), (200, 100, 50), np.uint8)
    assert detector.run(frame)["scores"][0, 0] == pytest.approx(wanted, rel=1e-3)


def test_another_layout_or_number_of_classes_is_one_line(tmp_path: Path) -> None:
    name = write(tmp_path / "own.onnx", outputs_of("yolo", 32, 64))
    with pytest.raises(
        WeightsError, match=r"own.onnx: outputs .*not those of layout 'yolo' with 2"
    ):
        ForeignDetector(name, "yolo", KINDS[:2])
    with pytest.raises(
        WeightsError, match=r"layout 'yolox' with 3 classes; correct score.overlays"
    ):
        ForeignDetector(name, "yolox", KINDS)
    with pytest.raises(WeightsError, match=r"layout 'rtdetr'"):
        ForeignDetector(name, "rtdetr", KINDS)


def test_an_input_of_open_size_is_refused(tmp_path: Path) -> None:
    name = write(tmp_path / "o.onnx", outputs_of("yolo", 32, 64), (1, 3, "height", "width"))
    with pytest.raises(WeightsError, match="H and W fixed; export it so"):
        ForeignDetector(name, "yolo", KINDS)


@pytest.mark.parametrize(
    "values",
    [{"layout": "yolo"}, {"model": "path:a.onnx", "layout": "yolo"}, {"classes": ["watermark"]},
     {"model": "path:a.onnx", "layout": "yolo", "classes": [""]}],
)  # fmt: skip
def test_layout_and_classes_are_asked_for_together(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="needs all three"):
        OverlaysConfig.model_validate(values)
