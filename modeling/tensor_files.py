"""Read and write named tensors one at a time: safetensors files, sharded or not.

Nothing here holds more than one tensor, so a checkpoint never needs twice its size in memory.
Pickled checkpoints are read only through `weights_only`, which runs no code of the file.
Format: https://github.com/huggingface/safetensors#format.
"""

import json
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

Shape = tuple[int, ...]

_DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}
_PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
# Where released pickles keep their tensors, and the prefixes that trainers put before the names.
_PICKLE_CONTAINERS = ("module", "ema", "state_dict", "model")
_PREFIXES = ("module.", "model.", "vae.")
_INDEX_SUFFIX = ".index.json"


@dataclass(frozen=True)
class NamedTensor:
    """A tensor to be written; `make` is called once, when its turn comes."""

    name: str
    shape: Shape
    dtype: torch.dtype
    make: Callable[[], Tensor]

    @property
    def num_bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


@dataclass(frozen=True)
class TensorSource:
    """The tensors of a checkpoint: their shapes, known at once, and `read`, one at a time."""

    shapes: dict[str, Shape]
    read: Callable[[str], Tensor]


@contextmanager
def open_tensors(path: Path) -> Iterator[TensorSource]:
    """Open a .safetensors file, a sharded one by its index or its unsharded name, or a pickle.

    Raises:
        ValueError: a file of another kind, a damaged one, or a pickle with Python objects in it.
        FileNotFoundError: no such file, nor an index beside it.

    """
    index = path.with_name(path.name + _INDEX_SUFFIX)
    if path.name.endswith(_INDEX_SUFFIX):
        files = _files_of_index(path)
    elif not path.exists() and index.exists():
        files = _files_of_index(index)
    elif not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}")
    elif path.suffix in _PICKLE_SUFFIXES:
        yield _open_pickle(path)
        return
    elif path.suffix == ".safetensors":
        files = [path]
    else:
        raise ValueError(f"a checkpoint is .safetensors or a weights-only pickle, got {path}")
    yield _open_safetensors(files)


def _files_of_index(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (json.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{index} is not an index of shards: {error!r}") from error
    for name in names:
        if Path(name).name != name:
            raise ValueError(f"{index} points outside its folder: {name}")
        if not (index.parent / name).exists():
            raise FileNotFoundError(f"{index} names {name}, which is not there")
    return [index.parent / name for name in names]


def _open_safetensors(files: Sequence[Path]) -> TensorSource:
    shapes: dict[str, Shape] = {}
    file_of: dict[str, Path] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (it is not a mapping)
                    if name in file_of:
                        raise ValueError(f"{name} is in {file_of[name]} and in {path}")
                    shapes[name] = tuple(file.get_slice(name).get_shape())
                    file_of[name] = path
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from error

    def read(name: str) -> Tensor:
        # Opened anew each time: pages of a mapping that is closed do not stay in memory.
        with safe_open(file_of[name], framework="pt") as file:
            return cast(Tensor, file.get_tensor(name))

    return TensorSource(shapes, read)


def _open_pickle(path: Path) -> TensorSource:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds Python objects, not just tensors; refused, convert it to safetensors"
        ) from error
    except RuntimeError as error:
        raise ValueError(f"{path} is not a checkpoint that can be mapped: {error}") from error
    container = next((key for key in _PICKLE_CONTAINERS if key in content), None)
    tensors: dict[str, Tensor] = content if container is None else content[container]
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    strangers = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
    if strangers:
        raise ValueError(f"{path} holds values that are not tensors: {strangers[:5]}")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return TensorSource(shapes, lambda name: tensors[name].clone())


def write_tensors(
    path: Path, tensors: Sequence[NamedTensor], *, max_shard_bytes: int | None = None
) -> None:
    """Write `path`, or `stem-00001-of-0000n` files and an index where one would be too large.

    Files are written under a temporary name and renamed; what an earlier write left under the
    other form is removed, so that no reader takes the old one.
    """
    shards = _shards(tensors, max_shard_bytes)
    index = path.with_name(path.name + _INDEX_SUFFIX)
    if len(shards) == 1:
        _write_atomically(path, partial(_write_safetensors, tensors=shards[0]))
        index.unlink(missing_ok=True)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"{path.stem}-{number:05d}-of-{len(shards):05d}{path.suffix}"
        _write_atomically(path.with_name(name), partial(_write_safetensors, tensors=shard))
        weight_map |= {tensor.name: name for tensor in shard}
    total_size = sum(tensor.num_bytes for tensor in tensors)
    content = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    _write_atomically(index, lambda file: file.write(text.encode()))
    path.unlink(missing_ok=True)


def _shards(tensors: Sequence[NamedTensor], max_shard_bytes: int | None) -> list[list[NamedTensor]]:
    """Fill shards in order; a tensor larger than the limit has one of its own."""
    shards: list[list[NamedTensor]] = [[]]
    filled = 0
    for tensor in tensors:
        full = max_shard_bytes is not None and filled + tensor.num_bytes > max_shard_bytes
        if full and shards[-1]:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += tensor.num_bytes
    return shards


def _write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_safetensors(file: BinaryIO, tensors: Sequence[NamedTensor]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        if tensor.dtype not in _DTYPE_NAMES:
            raise ValueError(f"{tensor.name} has type {tensor.dtype}, cannot be written")
        end = offset + tensor.num_bytes
        header[tensor.name] = {
            "dtype": _DTYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors:
        value = tensor.make().detach().to("cpu").contiguous()
        assert tuple(value.shape) == tensor.shape
        assert value.dtype == tensor.dtype
        file.write(value.view(-1).view(torch.uint8).numpy().data)
