"""The shipped ONNX file against the network that it was made from."""

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")

from modeling.perception.export_transnet import load_released  # noqa: E402
from modeling.perception.transnet import TransNetV2  # noqa: E402
from pipeline.onnx_model import OnnxModel  # noqa: E402

WEIGHTS_VARIABLE = "REELSIEVE_TRANSNET_PTH"


def moving_pictures() -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    shots = [np.kron(rng.integers(0, 256, (9, 40, 3)), np.ones((3, 3, 1))) for _ in range(2)]
    frames = [shots[t // 50][:, t % 50 : t % 50 + 48] for t in range(100)]
    return np.stack(frames).astype(np.uint8)[np.newaxis]


def test_the_onnx_file_is_the_released_network() -> None:
    path = os.environ.get(WEIGHTS_VARIABLE)
    if not path:
        pytest.skip(f"{WEIGHTS_VARIABLE} does not name the released weights")
    frames = moving_pictures()
    with torch.no_grad():
        cut, transition = load_released(Path(path))(torch.from_numpy(frames))
    told = OnnxModel("transnetv2", kind="shot_boundary").run(frames)
    np.testing.assert_allclose(told["cut"], cut.numpy(), atol=2e-3)
    np.testing.assert_allclose(told["transition"], transition.numpy(), atol=2e-3)


def test_the_shipped_network_sees_the_cut_where_it_was_made() -> None:
    told = OnnxModel("transnetv2", kind="shot_boundary").run(moving_pictures())
    assert int(np.argmax(told["cut"][0])) == 49
    assert told["cut"][0, 49] > 10 * np.median(told["cut"][0])


def test_other_weights_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="not the released TransNetV2 weights"):
        TransNetV2.from_released({})
