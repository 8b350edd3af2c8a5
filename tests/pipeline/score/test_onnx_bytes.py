import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.score.onnx_bytes import with_sums_for_differences, without_subnormals
from pipeline.score.sensitive import _weights


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


def normalized(op_types: list[str], *, shared: bool = False) -> bytes:
    """x, then one step with each weight in turn; `shared`: all steps use the same weight."""
    rng = np.random.default_rng(0)
    names = ["w0" if shared else f"w{k}" for k in range(len(op_types))]
    values = {name: rng.standard_normal(5).astype(np.float32) for name in names}
    steps = [f"x{k}" for k in range(len(op_types) + 1)]
    nodes = [
        helper.make_node(op_type, [steps[k], names[k]], [steps[k + 1]])
        for k, op_type in enumerate(op_types)
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [3, 5])],
        [helper.make_tensor_value_info(steps[-1], TensorProto.FLOAT, [3, 5])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString())


def run(model: bytes) -> np.ndarray:
    values = np.random.default_rng(1).standard_normal((3, 5)).astype(np.float32)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x0": values})[0])


def op_types_of(model: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(model).graph.node]


def test_a_difference_becomes_a_sum_with_the_same_bits() -> None:
    model = normalized(["Sub", "Mul", "Add", "Sub"])
    changed = with_sums_for_differences(model)
    assert op_types_of(changed) == ["Add", "Mul", "Add", "Add"]
    np.testing.assert_array_equal(run(changed), run(model))


def test_a_weight_that_others_use_is_left_alone() -> None:
    model = normalized(["Sub", "Mul", "Sub"], shared=True)
    assert with_sums_for_differences(model) == model


def test_the_changed_network_for_sensitive_content_says_the_same() -> None:
    before = _weights()
    changed = with_sums_for_differences(before)
    assert op_types_of(before).count("Sub") - op_types_of(changed).count("Sub") == 53
    frames = np.random.default_rng(2).uniform(-100, 150, (2, 224, 224, 3)).astype(np.float32)
    one, other = (
        onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(
            None, {"input_0": frames}
        )[0]
        for model in (before, changed)
    )
    np.testing.assert_allclose(one, other, atol=2e-6)
