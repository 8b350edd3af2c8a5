import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from modeling.perception.overlays.__main__ import replaced
from modeling.perception.overlays.classes import CLASS_INDEX, CLASSES, REPORTED, SCENE_TEXT
from modeling.perception.overlays.export import export_detector
from modeling.perception.overlays.loss import (
    Targets,
    assign,
    collate_truths,
    detection_loss,
    paired_giou,
    pairwise_iou,
)
from modeling.perception.overlays.network import Detector, places
from modeling.perception.overlays.precision import (
    Detections,
    average_precision,
    judged,
    suppress,
    threshold_for,
)
from modeling.perception.overlays.render import Truth, draw_recipe
from modeling.perception.overlays.train import (
    AVERAGED,
    CHECKPOINT,
    METRICS,
    Limits,
    Renderings,
    TrainConfig,
    best_boxes,
    train,
    validate,
)
from schemas.overlay_network import OVERLAY_KINDS, OVERLAY_THRESHOLDS_KEY
from tests.modeling.perception.overlay_backgrounds import write_small_backgrounds

HW = (96, 128)
SMALL_HW = (64, 96)
NUM_STEPS = 20


def truth(*rows: tuple[str, tuple[float, float, float, float], bool]) -> Truth:
    return Truth(
        np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
        np.array([CLASS_INDEX[row[0]] for row in rows], np.int64),
        np.array([row[2] for row in rows], bool),
    )


def test_the_kinds_are_those_of_the_score() -> None:
    assert set(REPORTED) <= set(OVERLAY_KINDS)
    assert [*REPORTED, SCENE_TEXT] == [*CLASSES]


def test_the_network_answers_at_the_places_it_says() -> None:
    network = Detector().eval()
    with torch.inference_mode():
        boxes, logits = network(torch.rand(2, 3, *HW))
    centers, strides = places(HW, torch.device("cpu"))
    assert boxes.shape == (2, len(centers), 4)
    assert logits.shape == (2, len(centers), len(CLASSES) + 1)
    # At the start each box lies about its own place, some strides wide.
    away = ((boxes[..., :2] + boxes[..., 2:]) / 2 - centers).abs().amax(-1)
    assert (away < 2 * strides).all()
    assert 0.9e6 <= sum(p.numel() for p in network.parameters()) <= 4e6


def test_overlaps_agree_with_counting_pixels() -> None:
    rng = np.random.default_rng(0)
    first, second = (
        np.concatenate([low, low + rng.integers(1, 12, (6, 2))], 1).astype(np.float32)
        for low in (rng.integers(0, 12, (6, 2)) for _ in range(2))
    )
    canvas = np.zeros((2, 6, 24, 24), bool)
    for part, boxes in enumerate((first, second)):
        for index, (left, top, right, bottom) in enumerate(boxes.astype(int)):
            canvas[part, index, top:bottom, left:right] = True
    shared = (canvas[0][:, None] & canvas[1][None]).sum((2, 3))
    union = (canvas[0][:, None] | canvas[1][None]).sum((2, 3))
    found = pairwise_iou(torch.from_numpy(first)[None], torch.from_numpy(second)[None])[0]
    assert np.allclose(found, shared / union, atol=1e-5)
    giou = paired_giou(torch.from_numpy(first), torch.from_numpy(second)).numpy()
    low, high = np.minimum(first, second)[:, :2], np.maximum(first, second)[:, 2:]
    hull, union_own = (high - low).prod(1), np.diagonal(union)
    assert np.allclose(giou, np.diagonal(shared / union) - (hull - union_own) / hull, atol=1e-5)


def fixed_targets(*truths: Truth) -> Targets:
    return collate_truths(truths, HW)


def test_every_box_gets_a_place_near_it_and_no_place_serves_two() -> None:
    torch.manual_seed(0)
    network = Detector()
    targets = fixed_targets(
        truth(
            ("corner_logo", (0.02, 0.02, 0.1, 0.12), False),
            ("subtitle", (0.2, 0.8, 0.8, 0.9), False),
        ),
        truth(("collage", (0, 0, 0.5, 1), False), ("collage", (0.5, 0, 1, 1), False)),
    )
    centers, strides = places(HW, torch.device("cpu"))
    with torch.no_grad():
        boxes, logits = network(torch.rand(2, 3, *HW))
        taken, index, overlap = assign(boxes, logits, centers, strides, targets)
    for picture in range(2):
        assert set(index[picture][taken[picture]].tolist()) == {0, 1}
        for place in taken[picture].nonzero()[:, 0].tolist():
            box = targets.boxes_NG4[picture, index[picture, place]]
            x, y = centers[place]
            reach = 2.5 * strides[place] + max(box[2] - box[0], box[3] - box[1])
            assert (x - (box[0] + box[2]) / 2).abs() <= reach
            assert (y - (box[1] + box[3]) / 2).abs() <= reach
    assert (overlap[~taken] <= 1).all()


def test_a_picture_without_boxes_takes_no_place_and_ignored_marks_cost_nothing() -> None:
    torch.manual_seed(0)
    centers, strides = places(HW, torch.device("cpu"))
    boxes, logits = Detector()(torch.rand(1, 3, *HW))
    logits = logits.detach().clone()
    empty, ignored = (
        fixed_targets(truth()), fixed_targets(truth(("watermark", (0.25, 0.25, 0.75, 0.75), True)))
    )  # fmt: skip
    taken, *_ = assign(boxes, logits, centers, strides, empty)
    assert not taken.any()
    inside = (
        (centers[:, 0] >= 32) & (centers[:, 0] < 96) & (centers[:, 1] >= 24) & (centers[:, 1] < 72)
    )
    quiet = detection_loss(boxes, logits, centers, strides, ignored)["total"]
    logits[0, inside, -1] += 9  # a sure alarm where the mark is
    assert torch.equal(detection_loss(boxes, logits, centers, strides, ignored)["total"], quiet)
    assert detection_loss(boxes, logits, centers, strides, empty)["total"] > quiet


@pytest.fixture(scope="module")
def backgrounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_backgrounds(tmp_path_factory.mktemp("backgrounds") / "b.zip")


def test_the_loss_of_fixed_renderings_falls(backgrounds: Path) -> None:
    torch.manual_seed(0)
    rendered = Renderings(backgrounds, "train", 3, SMALL_HW)
    samples = [rendered[n] for n in range(4)]
    images = torch.stack([image for image, _ in samples]).permute(0, 3, 1, 2).float() / 255
    targets = collate_truths([t for _, t in samples], SMALL_HW)
    centers, strides = places(SMALL_HW, torch.device("cpu"))
    network = Detector()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(NUM_STEPS):
        boxes, logits = network(images)
        loss = detection_loss(boxes, logits, centers, strides, targets)["total"]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


def test_a_resumed_training_is_the_same_and_writes_as_it_goes(
    backgrounds: Path, tmp_path: Path
) -> None:
    config = TrainConfig(input_HW=(64, 96), num_steps=6, batch_size=2, num_validation=6)
    assert train(backgrounds, tmp_path / "whole", config) is not None
    assert train(backgrounds, tmp_path / "parts", config, Limits(stop_after=2)) is None
    network = train(backgrounds, tmp_path / "parts", config)
    assert network is not None
    one, other = (
        torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in ("whole", "parts")
    )
    assert one["step"] == other["step"] == 6
    for part in ("network", "averaged"):
        assert all(torch.equal(one[part][key], other[part][key]) for key in one[part])
    rows = [json.loads(line) for line in (tmp_path / "whole" / METRICS).read_text().splitlines()]
    assert rows[-1]["step"] == 6
    assert rows[-1]["total"] > 0
    figures, thresholds = validate(network, backgrounds, config, num_workers=0, precision=0.9)
    assert 0 <= figures["map50"] <= 1
    assert set(thresholds) == set(REPORTED)


def test_a_further_training_begins_with_the_averaged_weights_of_another(
    backgrounds: Path, tmp_path: Path
) -> None:
    config = TrainConfig(input_HW=(64, 96), num_steps=2, batch_size=2)
    before = train(backgrounds, tmp_path / "first", config)
    still = replace(config, num_steps=1, learning_rate=0.0, seed=1)
    after = train(backgrounds, tmp_path / "second", still, init=tmp_path / "first" / AVERAGED)
    assert before is not None
    assert after is not None
    pairs = zip(before.named_parameters(), after.named_parameters(), strict=True)
    assert all(torch.allclose(one, other, atol=1e-6) for (_, one), (_, other) in pairs)


def test_watermarks_are_as_much_likelier_as_asked() -> None:
    shares = []
    for factor in (1.0, 4.0):
        kinds = [
            {mark.kind for mark in draw_recipe(rng, (64, 96), "train", factor).marks}
            for rng in map(np.random.default_rng, range(300))
        ]
        shares.append(sum("watermark" in each for each in kinds) / len(kinds))
    assert 1.5 * shares[0] < shares[1] < 4 * shares[0]


def test_no_time_left_means_no_further_step(backgrounds: Path, tmp_path: Path) -> None:
    config = TrainConfig(input_HW=(64, 96), num_steps=50, batch_size=2)
    train(backgrounds, tmp_path, config, Limits(seconds=1e-3))
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["step"] <= 1


def test_sides_that_the_strides_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"multiples of 32, got \(100, 128\)"):
        TrainConfig(input_HW=(100, 128))


def test_the_exported_file_gives_the_same_boxes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Detector().eval()
    path = tmp_path / "overlays.onnx"
    config = TrainConfig(input_HW=HW)
    export_detector(network, path, thresholds={"banner": 0.25}, model_id="test", config=config)
    assert path.stat().st_size <= 8e6
    frames = np.random.default_rng(0).integers(0, 256, (3, 1, *HW, 3)).astype(np.uint8)
    session = onnxruntime.InferenceSession(str(path))
    boxes, scores, kinds = session.run(None, {"frames": frames})
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    assert set(np.unique(kinds)) <= {OVERLAY_KINDS.index(name) for name in REPORTED}
    with torch.inference_mode():
        places_NA4, logits = network(torch.from_numpy(frames[:, 0]).permute(0, 3, 1, 2) / 255)
    assert np.allclose(scores, best_boxes(places_NA4, logits)[1], atol=2e-3)
    shares = (places_NA4 / torch.tensor([HW[1], HW[0]] * 2)).clamp(0, 1).numpy()
    # Nearly equal scores may change places: each exported box is one of the network's.
    for exported, own in zip(boxes, shares, strict=True):
        gaps = np.abs(exported[:20, None] - own[None]).max(-1).min(1)
        assert gaps.max() < 1e-2
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata[OVERLAY_THRESHOLDS_KEY]) == {"banner": 0.25}


def detections(*rows: tuple[tuple[float, float, float, float], float, int]) -> Detections:
    return Detections(
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.int64),
    )


def test_only_worse_boxes_of_the_same_class_are_suppressed() -> None:
    box, near, far = (0.1, 0.1, 0.5, 0.5), (0.12, 0.1, 0.5, 0.5), (0.6, 0.6, 0.9, 0.9)
    kept = suppress(
        detections((near, 0.5, 0), (box, 0.9, 0), (near, 0.4, 1), (far, 0.3, 0)), max_iou=0.5
    )
    assert kept.scores_N.tolist() == pytest.approx([0.9, 0.4, 0.3])
    assert kept.labels_N.tolist() == [0, 1, 0]


def test_average_precision_of_a_ranking_worked_out_by_hand() -> None:
    """Right, wrong, right, of three boxes: 1/3 at precision 1 and 1/3 at 2/3."""
    assert average_precision(np.array([True, False, True]), 3) == pytest.approx(1 / 3 + 2 / 9)
    assert average_precision(np.array([], bool), 3) == 0


def test_the_second_box_on_one_mark_is_wrong_and_one_on_an_ignored_mark_is_nothing() -> None:
    label = CLASS_INDEX["watermark"]
    there = (0.1, 0.1, 0.5, 0.2)
    marks = truth(("watermark", there, False), ("watermark", (0.6, 0.6, 0.9, 0.7), True))
    found = detections((there, 0.9, label), (there, 0.8, label), ((0.6, 0.6, 0.9, 0.7), 0.7, label))
    scores, hits, total = judged([found], [marks], label)
    assert hits.tolist() == [True, False]
    assert scores.tolist() == pytest.approx([0.9, 0.8])
    assert total == 1


def test_a_threshold_is_the_lowest_with_the_wanted_precision() -> None:
    scores, hits = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, False])
    assert threshold_for(scores, hits, precision=0.9, least=0.1) == 0.8
    assert threshold_for(scores, ~hits, precision=0.9, least=0.1) == 1.0


def test_a_threshold_that_clips_have_shown_replaces_the_report_s() -> None:
    found = {"banner": 0.2, "border": 0.5}
    assert replaced(found, ["banner=0.84"]) == {"banner": 0.84, "border": 0.5}
    assert found["banner"] == 0.2
    for wrong in ("crawl=0.5", "banner=1.5", "banner", "banner=high"):
        with pytest.raises(SystemExit, match="need KIND=SCORE of banner, border"):
            replaced(found, [wrong])
