"""Low-rank adapters (LoRA, arXiv:2106.09685) of a DiT as folders, in peft's own format.

    adapter_config.json         peft's LoraConfig
    adapter_model.safetensors   the two factors of each adapted layer
    base.json                   AdapterCard: which network it was trained on

peft's `PeftModel.from_pretrained` reads such a folder. One that another program wrote has no
base.json, and only its names and shapes can be checked.
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor

from modeling.dit import VideoDiT
from modeling.fingerprint import model_fingerprint
from modeling.tensor_files import NamedTensor, open_tensors, write_tensors
from schemas.base import StrictModel

CARD_FILE = "base.json"
_CONFIG_FILE, _WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."  # what peft puts before a layer's name in files
MISSING_PEFT = "peft is not installed: pip install 'reelsieve[lora]'"


class AdapterCard(StrictModel):
    """`base` is where the adapted network lay; its fingerprint decides, wherever it lies now."""

    base: str
    base_fingerprint: str
    step: int = 0


def write_adapter(
    folder: Path,
    card: AdapterCard,
    factors: Mapping[str, Tensor],
    *,
    rank: int,
    alpha: int,
    dropout: float,
    targets: tuple[str, ...],
) -> None:
    """`factors` by layer: `double_blocks.0.img_attn_qkv.lora_A.weight` and so on."""
    from peft import LoraConfig

    folder.mkdir(parents=True, exist_ok=True)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        base_model_name_or_path=card.base,
        inference_mode=True,
    )
    config.target_modules = sorted(targets)  # after the constructor, which would make it a set
    config.save_pretrained(str(folder))
    tensors = [
        NamedTensor(f"{_PREFIX}{name}", tuple(each.shape), each.dtype, each.detach)
        for name, each in sorted(factors.items())
    ]
    write_tensors(folder / _WEIGHTS_FILE, tensors)
    (folder / CARD_FILE).write_text(card.model_dump_json(indent=2) + "\n")


def apply_adapter(network: VideoDiT, folder: Path) -> None:
    """Add an adapter to the weights of the network that it was trained on; nothing else remains.

    Raises:
        FileNotFoundError: no adapter there, or peft is missing.
        ValueError: another kind of adapter, or one of another network.

    """
    if not (folder / _CONFIG_FILE).is_file():
        raise FileNotFoundError(f"{folder} is no adapter: it has no {_CONFIG_FILE}")
    try:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.config import PeftConfig
        from peft.tuners.lora import LoraLayer
    except ModuleNotFoundError as error:
        raise FileNotFoundError(MISSING_PEFT) from error
    _check_base(network, folder)
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{folder / _CONFIG_FILE} cannot be read: {_line(error)}") from error
    if not isinstance(config, LoraConfig):
        raise ValueError(f"{folder} holds an adapter of type {config.peft_type.value}, not LoRA")
    try:
        inject_adapter_in_model(config, network)
    except ValueError as error:
        raise ValueError(f"the adapter in {folder} does not fit: {_line(error)}") from error
    _load_factors(network, folder)
    for name, layer in list(network.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()
            network.set_submodule(name, layer.get_base_layer())
    del network.peft_config
    network.eval().requires_grad_(requires_grad=False)


def _check_base(network: VideoDiT, folder: Path) -> None:
    file = folder / CARD_FILE
    if not file.is_file():
        return
    try:
        card = AdapterCard.model_validate_json(file.read_text())
    except ValidationError as error:
        raise ValueError(f"{file} cannot be read: {error.errors()[0]['msg']}") from error
    found = model_fingerprint(network)
    if found != card.base_fingerprint:
        raise ValueError(
            f"the adapter in {folder} was trained on the network {card.base_fingerprint} (then in "
            f"{card.base}), the checkpoint is {found}"
        )


def _load_factors(network: VideoDiT, folder: Path) -> None:
    own = {
        _PREFIX + name.replace(".default.", "."): tensor
        for name, tensor in network.state_dict().items()
        if ".lora_" in name
    }
    with open_tensors(folder / _WEIGHTS_FILE) as source:
        for name in sorted(own.keys() | source.shapes.keys()):
            shape = tuple(own[name].shape) if name in own else "missing"
            found = source.shapes.get(name, "missing")
            if shape != found:
                raise ValueError(
                    f"the adapter in {folder} does not fit: {name.removeprefix(_PREFIX)} is "
                    f"{found} there, {shape} in this network"
                )
        for name, tensor in own.items():
            tensor.copy_(source.read(name))


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]
