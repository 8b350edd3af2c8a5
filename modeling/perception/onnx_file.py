"""Write networks as the ONNX files that the pipeline loads: with a card and fp16 weights."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from schemas.model_card import FRAMES_INPUT, ModelCard

_OPSET = 20
_MIN_ELEMENTS_FP16 = 64  # scalars, axes and shapes stay as they are


def export_onnx(
    model: nn.Module,
    example_frames_NTHWC: Tensor,
    path: Path,
    *,
    card: ModelCard,
    outputs: Sequence[str],
    dynamic_time: bool = False,
    dynamic_batch: bool = True,
) -> str:
    """Trace `model` and write it. Returns the file's sha256.

    Without `dynamic_batch` the network takes as many clips at once as the example has.
    """
    axes: dict[int, torch.export.Dim] = {}
    if dynamic_batch:
        axes[0] = torch.export.Dim("N")
    if dynamic_time:
        axes[1] = torch.export.Dim("T")
    program = torch.onnx.export(
        model.eval(),
        (example_frames_NTHWC,),
        input_names=[FRAMES_INPUT],
        output_names=list(outputs),
        opset_version=_OPSET,
        dynamo=True,
        dynamic_shapes=(axes,),
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    store_weights_as_fp16(proto)
    strip_traces(proto)
    helper.set_model_props(proto, card.to_metadata())
    onnx.checker.check_model(proto, full_check=True)
    data = proto.SerializeToString(deterministic=True)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def store_weights_as_fp16(proto: onnx.ModelProto) -> None:
    """Halve the file: fp16 initializers, each followed by a Cast that the runtime folds at load."""
    graph = proto.graph
    casts: list[onnx.NodeProto] = []
    for index, tensor in enumerate(graph.initializer):
        array = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or array.size < _MIN_ELEMENTS_FP16:
            continue
        name = tensor.name
        stored = numpy_helper.from_array(array.astype("float16"), f"{name}_fp16")
        graph.initializer[index].CopyFrom(stored)
        casts.append(helper.make_node("Cast", [stored.name], [name], to=TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])


def strip_traces(proto: onnx.ModelProto) -> None:
    """Drop what the exporter notes about source lines: it names the exporting machine's paths."""
    proto.doc_string = ""
    del proto.metadata_props[:]
    del proto.graph.metadata_props[:]
    del proto.graph.value_info[:]
    for node in proto.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
