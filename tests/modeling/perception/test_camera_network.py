import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from modeling.perception.camera.calibration import (
    calibration_error,
    class_thresholds,
    fit_temperature,
)
from modeling.perception.camera.data import (
    Clip,
    Features,
    augment,
    collate,
    flip,
    mirror,
    reverse,
)
from modeling.perception.camera.export import export_camera
from modeling.perception.camera.network import NUM_OUTPUTS, CameraNet
from modeling.perception.camera.train import CHECKPOINT, TrainConfig, train
from schemas.camera_network import (
    CAMERA_CLASSES,
    CAMERA_INPUT,
    GRID_COLUMNS,
    GRID_ROWS,
    NUM_CELLS,
    NUM_FEATURES,
    THRESHOLDS_KEY,
)

LEFT, RIGHT, ZOOM_IN, STATIC = (
    CAMERA_CLASSES.index(name) for name in ("pan_left", "pan_right", "zoom_in", "static_shot")
)


def moving(rng: np.random.Generator, label: int, num_steps: int) -> Clip:
    """Features of a plane before a camera that does this, at a random speed."""
    speed = rng.uniform(0.02, 0.3)
    model = np.zeros(8)
    model[0] = {LEFT: speed, RIGHT: -speed}.get(label, 0.0)
    model[[1, 5]] = 4 * speed if label == ZOOM_IN else 0.0
    y, x = np.mgrid[-1 : 1 : GRID_ROWS * 1j, -1 : 1 : GRID_COLUMNS * 1j] * 0.3
    u, v = model[0] + model[1] * x.ravel(), model[5] * y.ravel()
    row = np.concatenate([u, v, np.ones(NUM_CELLS), model, [1.0, 0.125, 0.43]])
    noise = np.zeros((num_steps, NUM_FEATURES))
    noise[:, : 2 * NUM_CELLS] = rng.normal(0, 0.002, (num_steps, 2 * NUM_CELLS))
    return Clip((row + noise).astype(np.float32), label, 1 if label == ZOOM_IN else -1)


def write_clips(folder: Path, split: str, count: int) -> None:
    rng = np.random.default_rng(len(split))
    clips = [moving(rng, (LEFT, RIGHT, ZOOM_IN, STATIC)[n % 4], 8 + n % 5) for n in range(count)]
    np.savez(
        folder / f"{split}-00000.npz",
        steps=[len(c.features_SF) for c in clips],
        labels=[c.label for c in clips],
        dolly=[c.is_dolly for c in clips],
        features=np.concatenate([c.features_SF for c in clips]).astype(np.float16),
    )


@pytest.mark.parametrize("change", [mirror, flip, reverse])
def test_every_change_undone_is_the_clip_again(change: Callable[[Features], Features]) -> None:
    features = np.random.default_rng(0).normal(size=(7, NUM_FEATURES)).astype(np.float32)
    assert not np.allclose(change(features), features)
    assert np.allclose(change(change(features)), features)


def test_a_mirrored_pan_to_the_left_is_one_to_the_right() -> None:
    rng = np.random.default_rng(1)
    left = moving(rng, LEFT, 9)
    mirrored = mirror(left.features_SF)
    assert mirrored[:, 3 * NUM_CELLS] == pytest.approx(-left.features_SF[:, 3 * NUM_CELLS])
    zoom = moving(rng, ZOOM_IN, 9).features_SF
    assert np.allclose(mirror(zoom), zoom, atol=0.05)
    labels = {augment(left, np.random.default_rng(seed)).label for seed in range(30)}
    assert labels == {LEFT, RIGHT}


def test_padding_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    short, long = moving(rng, LEFT, 6), moving(rng, RIGHT, 17)
    network = CameraNet().eval()
    with torch.inference_mode():
        together = collate([short, long])
        both = network(together.features_NSF, together.is_step_NS)[0]
        alone = collate([short])
        one = network(alone.features_NSF, alone.is_step_NS)[0]
    assert torch.allclose(both[:1], one, atol=1e-4)


def test_it_learns_and_a_resumed_training_is_the_same(tmp_path: Path) -> None:
    write_clips(tmp_path, "train", 96)
    write_clips(tmp_path, "validation", 32)
    config = TrainConfig(num_epochs=12, batch_size=16, average=0.8)
    whole = train(tmp_path, tmp_path / "whole", config)
    assert whole is not None
    assert (whole.probability_NK.argmax(axis=1) == whole.label_N).mean() >= 0.9
    assert train(tmp_path, tmp_path / "parts", config, stop_after=5) is None
    parts = train(tmp_path, tmp_path / "parts", config)
    assert parts is not None
    assert parts.temperature == whole.temperature
    one, other = (
        torch.load(tmp_path / name / CHECKPOINT, weights_only=True)["network"]
        for name in ("whole", "parts")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_exported_file_gives_the_same_calibrated_probabilities(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = CameraNet().eval()
    path = tmp_path / "camera.onnx"
    limits = [0.5] * len(CAMERA_CLASSES)
    export_camera(
        network, path, temperature=1.7, thresholds=limits, model_id="test", config=TrainConfig()
    )
    session = onnxruntime.InferenceSession(str(path))
    for num_steps in (4, 31):
        features = moving(np.random.default_rng(3), ZOOM_IN, num_steps).features_SF[None]
        found = session.run(None, {CAMERA_INPUT: features})
        with torch.inference_mode():
            logits, dolly = network(torch.from_numpy(features), torch.ones(1, num_steps))
        assert np.allclose(found[0], torch.softmax(logits / 1.7, 1), atol=1e-3)
        assert np.allclose(found[1], torch.sigmoid(dolly), atol=1e-3)
    written = session.get_modelmeta().custom_metadata_map[THRESHOLDS_KEY]
    assert json.loads(written) == limits


def test_confidence_that_is_too_high_is_brought_down() -> None:
    """Logits that are right 80 times in 100 and claim more."""
    rng = np.random.default_rng(4)
    label = rng.integers(0, NUM_OUTPUTS, 2000)
    named = np.where(rng.random(2000) < 0.8, label, (label + 1) % NUM_OUTPUTS)
    logits = torch.from_numpy(12.0 * np.eye(NUM_OUTPUTS)[named])
    temperature = fit_temperature(logits, torch.from_numpy(label))
    before = torch.softmax(logits, 1).numpy()
    after = torch.softmax(logits / temperature, 1).numpy()
    assert calibration_error(before, label) == pytest.approx(0.2, abs=0.03)
    assert calibration_error(after, label) < 0.05


def test_thresholds_are_the_lowest_with_the_wanted_precision() -> None:
    """Of one class: right from 0.95 down to 0.6, wrong at 0.5 and below."""
    confidence = np.array([0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5, 0.4, 0.3])
    probability = np.zeros((len(confidence), NUM_OUTPUTS))
    probability[:, 3] = confidence
    label = np.where(confidence >= 0.6, 3, 5)
    thresholds = class_thresholds(probability, label, precision=0.9)
    assert thresholds[3] == 0.6
    assert thresholds[5] == 1.0
