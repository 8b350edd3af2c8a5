"""The door to the networks: what it refuses, and that the same frames give the same bits."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline import onnx_model
from pipeline.onnx_model import OnnxModel, WeightsError, locate_weights, shipped_weights
from schemas.model_card import ModelCard, ModelKind

CARD = ModelCard(
    kind="clip_embedding",
    model_id="toy",
    interface_version=1,
    num_frames=2,
    height=4,
    width=6,
    resize="stretch",
    config_sha256="",
)
FRAMES_NTHWC = np.random.default_rng(0).integers(0, 256, (3, 2, 4, 6, 3), dtype=np.uint8)
WriteModel = Callable[..., Path]


@pytest.fixture
def write_model(tmp_path: Path) -> WriteModel:
    """Writes a graph that multiplies the frames' sum over T, H, W with an fp16 matrix."""

    def write(
        input_name: str = "frames",
        output_name: str = "embedding",
        **metadata: str,
    ) -> Path:
        matrix = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float16)
        nodes = [
            helper.make_node("Cast", [input_name], ["x"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["x", "axes"], ["sum"], keepdims=0),
            helper.make_node("Cast", ["matrix"], ["matrix_f32"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["sum", "matrix_f32"], [output_name]),
        ]
        graph = helper.make_graph(
            nodes,
            "toy",
            [helper.make_tensor_value_info(input_name, TensorProto.UINT8, ["N", "T", 4, 6, 3])],
            [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, ["N", 5])],
            [
                numpy_helper.from_array(matrix, "matrix"),
                numpy_helper.from_array(np.array([1, 2, 3]), "axes"),
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        helper.set_model_props(model, {**CARD.to_metadata(), **metadata})
        path = tmp_path / "toy.onnx"
        onnx.save(model, str(path))
        return path

    return write


def test_the_card_survives_the_way_through_the_file(write_model: WriteModel) -> None:
    path = write_model()
    model = OnnxModel(f"path:{path}", kind="clip_embedding")
    assert model.card == CARD
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.output_names == ("embedding",)


def test_fp16_weights_are_computed_in_fp32(write_model: WriteModel) -> None:
    model = OnnxModel(f"path:{write_model()}", kind="clip_embedding")
    matrix = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float16).astype(np.float32)
    expected = FRAMES_NTHWC.astype(np.float32).sum(axis=(1, 2, 3)) @ matrix
    embedding = model.run(FRAMES_NTHWC)["embedding"]
    assert embedding.dtype == np.float32
    np.testing.assert_allclose(embedding, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("metadata", "needle"),
    [
        ({"kind": "sensitive"}, "kind is 'sensitive', this step needs 'clip_embedding'"),
        ({"kind": "nonsense"}, "metadata 'kind'"),
        ({"interface_version": "2"}, "interface_version is 2, this program speaks 1"),
        ({"height": "0"}, "metadata 'height'"),
        ({"resize": "zoom"}, "metadata 'resize'"),
        ({"input_name": "images"}, "inputs are [('images', 'tensor(uint8)', 5)]"),
        (
            {"output_name": "vector"},
            "outputs are ['vector'], 'clip_embedding' needs ['embedding'] or ['copy', 'semantic']",
        ),
        ({"width": "8"}, "its frames are ['N', 'T', 4, 6, 3], its card says N x 2 x 4 x 8 x 3"),
    ],
)
def test_a_model_of_another_interface_is_refused(
    write_model: WriteModel, metadata: dict[str, str], needle: str
) -> None:
    path = write_model(**metadata)
    with pytest.raises(WeightsError) as caught:
        OnnxModel(f"path:{path}", kind="clip_embedding")
    assert needle in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "frames",
    [
        FRAMES_NTHWC.astype(np.float32),
        FRAMES_NTHWC[:, :1],
        FRAMES_NTHWC[:, :, :3],
        FRAMES_NTHWC[0],
        FRAMES_NTHWC.transpose(0, 1, 4, 2, 3),
    ],
    ids=["float", "one frame", "three rows", "no batch", "channels first"],
)
def test_frames_that_the_card_does_not_name_are_refused(
    write_model: WriteModel, frames: Any
) -> None:
    model = OnnxModel(f"path:{write_model()}", kind="clip_embedding")
    with pytest.raises(ValueError, match="toy takes uint8 N x 2 x 4 x 6 x 3, got"):
        model.run(frames)


def test_any_number_of_frames_fits_a_card_without_one(write_model: WriteModel) -> None:
    model = OnnxModel(f"path:{write_model(num_frames='any')}", kind="clip_embedding")
    assert model.card.num_frames is None
    assert model.run(FRAMES_NTHWC[:, :1])["embedding"].shape == (3, 5)


@pytest.mark.parametrize("content", [None, b"", b"<html>not found</html>"])
def test_a_file_that_is_no_model_is_one_clear_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        OnnxModel(f"path:{path}", kind="clip_embedding")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(WeightsError, match=r"no weights named 'vit'; known: .*path:FILE"):
        locate_weights("vit")


def test_an_altered_shipped_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in onnx_model.WEIGHTS_FOLDER.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(onnx_model, "WEIGHTS_FOLDER", tmp_path)
    for name, entry in shipped_weights().items():
        file = tmp_path / entry.file
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        with pytest.raises(WeightsError, match=r"weights\.toml says"):
            locate_weights(name)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is there"
)
def test_asking_for_an_absent_gpu_provider_says_what_to_install(write_model: WriteModel) -> None:
    with pytest.raises(WeightsError, match="install onnxruntime-gpu or choose cpu"):
        OnnxModel(f"path:{write_model()}", kind="clip_embedding", provider="cuda")


def test_a_gpu_provider_that_falls_back_to_the_cpu_is_refused(
    write_model: WriteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the GPU build is installed and there is no device."""
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: [*onnx_model._PROVIDERS.values()]
    )
    start = onnxruntime.InferenceSession

    def on_cpu(path: str, *, providers: list[str], **more: Any) -> Any:
        return start(path, providers=["CPUExecutionProvider"], **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", on_cpu)
    with pytest.raises(WeightsError, match="fell back to CPUExecutionProvider"):
        OnnxModel(f"path:{write_model()}", kind="clip_embedding", provider="cuda")


def test_every_shipped_file_has_a_complete_entry_and_its_hash() -> None:
    files = {path.name for path in onnx_model.WEIGHTS_FOLDER.iterdir()} - {"weights.toml"}
    assert files == {entry.file for entry in shipped_weights().values()}
    for name, entry in shipped_weights().items():
        assert all(entry.model_dump().values()), f"{name}: an empty field"
        locate_weights(name)


def test_every_shipped_network_loads_as_what_its_entry_says() -> None:
    for name, entry in shipped_weights().items():
        if entry.file.endswith(".onnx"):
            card = OnnxModel(name, kind=cast("ModelKind", entry.kind)).card
            assert card.model_id == entry.model_id


def test_shipped_weights_stay_below_35_megabytes() -> None:
    sizes = [path.stat().st_size for path in onnx_model.WEIGHTS_FOLDER.iterdir()]
    assert sum(sizes) < 35_000_000
