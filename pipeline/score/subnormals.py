"""Weights too small to matter, set to zero: processors work on them a hundred times slower.

Subnormal numbers (below 1.2e-38) come out of fused scales in exported networks. Nothing that a
network computes in 32 bits can depend on them, but a convolution full of them takes most of its
time. Setting the processor's own flag instead would change all arithmetic of the process.
"""

from collections.abc import Iterator

import numpy as np

# Fields and types of onnx.proto3 (ONNX IR, Apache-2.0).
_GRAPH, _INITIALIZER, _DATA_TYPE, _RAW_DATA = 7, 5, 2, 9
_FLOAT = 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def without_subnormals(model: bytes) -> bytes:
    """The same ONNX file with subnormal float32 weights set to zero. ValueError if it is none."""
    content = bytearray(model)
    for start, end in _float_weights(model):
        values = np.frombuffer(content, np.float32, (end - start) // 4, start)
        values[np.abs(values) < np.finfo(np.float32).tiny] = 0.0
    return bytes(content)


def _float_weights(model: bytes) -> Iterator[tuple[int, int]]:
    """Where the raw bytes of the float32 initializers lie."""
    for graph in _fields(model, 0, len(model), _GRAPH):
        for tensor in _fields(model, *graph, _INITIALIZER):
            if (_FLOAT, _FLOAT) in list(_fields(model, *tensor, _DATA_TYPE)):
                yield from _fields(model, *tensor, _RAW_DATA)


def _fields(model: bytes, start: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Start and end of each wanted field of a message; a number's value stands for both."""
    while start < end:
        tag, start = _varint(model, start)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, start = _varint(model, start)
            span = value, value
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
            span = start, start + size
            start += size
        elif kind == _BYTES:
            size, start = _varint(model, start)
            span = start, start + size
            start += size
        else:
            raise ValueError(f"not an ONNX file: wire type {kind} at byte {start}")
        if start > end:
            raise ValueError(f"not an ONNX file: a field ends at byte {start}, after {end}")
        if number == wanted:
            yield span


def _varint(model: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(model):
        byte = model[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("not an ONNX file: it ends within a number")
