"""Checkpoints in and out: the original key layout and diffusers' folder layout.

Tensor by tensor in both directions, so that the peak is the model and one tensor. Every key is
accounted for before the first tensor is read: missing, unexpected and misshapen ones are one
error that names them.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from modeling.dit import DiTConfig, VideoDiT
from modeling.interop_keys import TensorMap, dit_tensor_maps
from modeling.tensor_files import NamedTensor, Shape, TensorSource, open_tensors, write_tensors
from modeling.vae import CausalVAE, VAEConfig

Model = CausalVAE | VideoDiT
Config = VAEConfig | DiTConfig

DEFAULT_MAX_SHARD_BYTES = 10 * 2**30

_DIT_CLASS = "HunyuanVideoTransformer3DModel"
_VAE_CLASS = "AutoencoderKLHunyuanVideo"
# Ours only: diffusers knows no per-frame norm, would ignore the option and compute other values.
# Another class and file name keep it from loading such a folder by accident.
_CAUSAL_VAE_CLASS = "CausalVAE"
_WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
_CAUSAL_WEIGHTS_FILE = "causal_vae.safetensors"
_DOWN_BLOCK, _UP_BLOCK = "HunyuanVideoDownBlock3D", "HunyuanVideoUpBlock3D"
_MAX_NAMES_IN_MESSAGE = 8


def to_diffusers(
    model: Model, folder: Path, *, max_shard_bytes: int = DEFAULT_MAX_SHARD_BYTES
) -> None:
    """Write config.json and weights, so that diffusers' `from_pretrained(folder)` loads them."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = model.state_dict()
    if isinstance(model, VideoDiT):
        tensors = [_cut(each, state[each.original]) for each in dit_tensor_maps(model.config)]
    else:
        tensors = [_whole(name, tensor) for name, tensor in state.items()]
    content = _diffusers_config(model.config)
    weights_file = _weights_file(str(content["_class_name"]))
    write_tensors(folder / weights_file, tensors, max_shard_bytes=max_shard_bytes)
    (folder / "config.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def from_diffusers(
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> Model:
    """The DiT or VAE of a diffusers folder, by its `_class_name`, in evaluation mode.

    dtype None keeps each tensor's stored type.

    Raises:
        ValueError: a class or option that is not built here, or tensors that do not fit.
        FileNotFoundError: no config.json or no weights.

    """
    folder = Path(folder)
    class_name, config = read_diffusers_config(folder)
    with open_tensors(folder / _weights_file(class_name)) as source:
        if isinstance(config, VAEConfig):
            return _load_original(config, source, dtype, torch.device(device))
        return _load_mapped(config, source, dtype, torch.device(device))


def to_original(
    model: Model, file: Path, *, max_shard_bytes: int = DEFAULT_MAX_SHARD_BYTES
) -> None:
    """Write one .safetensors file in the original key layout, or shards and an index."""
    file = Path(file)
    if file.suffix != ".safetensors":
        raise ValueError(f"the file must end in .safetensors, got {file}")
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = [_whole(name, tensor) for name, tensor in model.state_dict().items()]
    write_tensors(file, tensors, max_shard_bytes=max_shard_bytes)


def from_original(
    file: Path,
    config: Config,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> Model:
    """A model from the original key layout: safetensors, shards by index, or weights-only pickle.

    It comes in evaluation mode. dtype None keeps each tensor's stored type.

    Raises:
        ValueError: tensors that do not fit the config, or a file that is refused.

    """
    with open_tensors(Path(file)) as source:
        return _load_original(config, source, dtype, torch.device(device))


def read_diffusers_config(folder: Path) -> tuple[str, Config]:
    """(`_class_name`, config) of a folder; ValueError for what is not built here."""
    path = Path(folder) / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"no config.json in {folder}")
    content = json.loads(path.read_text())
    class_name = content.get("_class_name")
    fields = {name: value for name, value in content.items() if not name.startswith("_")}
    if class_name == _DIT_CLASS:
        return class_name, DiTConfig.model_validate(fields)
    if class_name not in (_VAE_CLASS, _CAUSAL_VAE_CLASS):
        known = ", ".join((_DIT_CLASS, _VAE_CLASS, _CAUSAL_VAE_CLASS))
        raise ValueError(f"{path} names the class {class_name!r}; known are {known}")
    for field, block in (("down_block_types", _DOWN_BLOCK), ("up_block_types", _UP_BLOCK)):
        if set(fields.pop(field, [block])) != {block}:
            raise ValueError(f"every entry of {field} in {path} must be {block}")
    return class_name, VAEConfig.model_validate(fields)


def _diffusers_config(config: Config) -> dict[str, object]:
    content: dict[str, object] = config.model_dump(mode="json")
    if isinstance(config, DiTConfig):
        return {"_class_name": _DIT_CLASS, **content}
    if not content.pop("per_frame_norm"):
        class_name = _VAE_CLASS
    else:
        content["per_frame_norm"] = True
        class_name = _CAUSAL_VAE_CLASS
    num_levels = len(config.block_out_channels)
    blocks = {
        "down_block_types": [_DOWN_BLOCK] * num_levels,
        "up_block_types": [_UP_BLOCK] * num_levels,
    }
    return {"_class_name": class_name, **blocks, **content}


def _weights_file(class_name: str) -> str:
    return _CAUSAL_WEIGHTS_FILE if class_name == _CAUSAL_VAE_CLASS else _WEIGHTS_FILE


def _whole(name: str, tensor: Tensor) -> NamedTensor:
    return NamedTensor(name, tuple(tensor.shape), tensor.dtype, lambda: tensor)


def _cut(each: TensorMap, original: Tensor) -> NamedTensor:
    def make() -> Tensor:
        parts = [original[start:end] for start, end in each.rows]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    return NamedTensor(each.name, _mapped_shape(each, original), original.dtype, make)


def _mapped_shape(each: TensorMap, original: Tensor) -> Shape:
    return (sum(end - start for start, end in each.rows), *original.shape[1:])


def _empty_model(config: Config) -> Model:
    with torch.device("meta"):
        return CausalVAE(config) if isinstance(config, VAEConfig) else VideoDiT(config)


def _load_original(
    config: Config, source: TensorSource, dtype: torch.dtype | None, device: torch.device
) -> Model:
    model = _empty_model(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    check_tensors(expected, source.shapes)
    for name in expected:
        _assign(model, name, source.read(name).to(device=device, dtype=dtype))
    return model.eval()


def _load_mapped(
    config: DiTConfig, source: TensorSource, dtype: torch.dtype | None, device: torch.device
) -> Model:
    model = _empty_model(config)
    originals = model.state_dict()
    parts: dict[str, list[TensorMap]] = defaultdict(list)
    expected: dict[str, Shape] = {}
    for each in dit_tensor_maps(config):
        parts[each.original].append(each)
        expected[each.name] = _mapped_shape(each, originals[each.original])
    check_tensors(expected, source.shapes)
    for name, pieces in parts.items():
        _assign(model, name, _join(originals[name].shape, pieces, source, dtype, device))
    return model.eval()


def _join(
    shape: torch.Size,
    pieces: list[TensorMap],
    source: TensorSource,
    dtype: torch.dtype | None,
    device: torch.device,
) -> Tensor:
    """The original tensor from its diffusers pieces, each read into its place."""
    whole: Tensor | None = None
    for piece in pieces:
        value = source.read(piece.name)
        if whole is None:
            whole = torch.empty(shape, dtype=dtype or value.dtype, device=device)
        taken = 0
        for start, end in piece.rows:
            whole[start:end] = value[taken : taken + end - start]
            taken += end - start
    assert whole is not None
    return whole


def _assign(model: nn.Module, name: str, value: Tensor) -> None:
    module_name, _, parameter_name = name.rpartition(".")
    setattr(model.get_submodule(module_name), parameter_name, nn.Parameter(value))


def check_tensors(expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> None:
    """Raise ValueError that names missing, unexpected and misshapen tensors, if there are any."""
    missing = [f"{name} {shape}" for name, shape in expected.items() if name not in found]
    unexpected = [f"{name} {shape}" for name, shape in found.items() if name not in expected]
    misshapen = [
        f"{name} {found[name]} instead of {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "misshapen": misshapen}
    if not any(problems.values()):
        return
    lines = [
        f"{len(names)} {kind}: {', '.join(names[:_MAX_NAMES_IN_MESSAGE])}"
        + (", ..." if len(names) > _MAX_NAMES_IN_MESSAGE else "")
        for kind, names in problems.items()
        if names
    ]
    raise ValueError("the checkpoint does not fit the config; " + "; ".join(lines))
