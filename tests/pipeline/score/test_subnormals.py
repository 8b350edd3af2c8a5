import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.score.subnormals import without_subnormals


def network(weights: np.ndarray) -> bytes:
    values = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(weights.shape))
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, list(weights.shape))
    counts = numpy_helper.from_array(np.arange(-3, 3, dtype=np.int64), "counts")
    doubles = numpy_helper.from_array(np.full(3, 1e-40), "doubles")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [values],
        [result],
        [counts, numpy_helper.from_array(weights, "w"), doubles],
    )
    return bytes(helper.make_model(graph, doc_string="long " * 100).SerializeToString())


def test_only_weights_below_the_smallest_normal_number_become_zero() -> None:
    tiny = np.finfo(np.float32).tiny
    weights = np.array([1.0, -1e-39, 1e-44, tiny, -tiny, 0.0, -2.5e-38, tiny / 2], np.float32)
    model = network(weights)
    cleaned = without_subnormals(model)
    kept = np.array([1.0, 0.0, 0.0, tiny, -tiny, 0.0, -2.5e-38, 0.0], np.float32)
    assert len(cleaned) == len(model)
    found = onnx.load_from_string(cleaned).graph.initializer
    counts, floats, doubles = (numpy_helper.to_array(tensor) for tensor in found)
    np.testing.assert_array_equal(floats, kept)
    np.testing.assert_array_equal(counts, np.arange(-3, 3))
    np.testing.assert_array_equal(doubles, np.full(3, 1e-40))


def test_a_network_without_such_weights_stays_the_same_file() -> None:
    model = network(np.linspace(-1, 1, 64, dtype=np.float32))
    assert without_subnormals(model) == model


@pytest.mark.parametrize("length", [1, 10, 200])
def test_a_cut_file_is_an_error(length: int) -> None:
    with pytest.raises(ValueError, match="not an ONNX file"):
        without_subnormals(network(np.ones(512, np.float32))[:-length])
