"""Which layers of a DiT are adapted, and how many weights that takes."""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from modeling.dit_config import DiTConfig
from schemas.base import StrictModel

Target = Literal[
    "img_attn_qkv",
    "img_attn_proj",
    "img_mlp.fc1",
    "img_mlp.fc2",
    "img_mod.linear",
    "txt_attn_qkv",
    "txt_attn_proj",
    "txt_mlp.fc1",
    "txt_mlp.fc2",
    "txt_mod.linear",
    "linear1",
    "linear2",
    "modulation.linear",
]
# All layers that tokens pass, of dual-stream and single-stream blocks.
_DEFAULT: tuple[Target, ...] = (
    "img_attn_qkv",
    "img_attn_proj",
    "img_mlp.fc1",
    "img_mlp.fc2",
    "txt_attn_qkv",
    "txt_attn_proj",
    "txt_mlp.fc1",
    "txt_mlp.fc2",
    "linear1",
    "linear2",
)


class LoraTraining(StrictModel):
    """Train low-rank additions to layers of a DiT that stays as `--init-from` gave it.

    A layer W becomes W + alpha / rank * B A (arXiv:2106.09685), with B zero at first. `targets`
    name layers of the blocks; `dropout` is of what enters A.
    """

    rank: Annotated[int, Field(gt=0)] = 16
    alpha: Annotated[int, Field(gt=0)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Annotated[tuple[Target, ...], Field(min_length=1)] = _DEFAULT

    @model_validator(mode="after")
    def _no_double(self) -> Self:
        if len(set(self.targets)) < len(self.targets):
            raise ValueError(f"targets names a layer twice: {', '.join(self.targets)}")
        return self


@dataclass(frozen=True)
class AdaptedLayers:
    """`count` equal layers; `tokens` are those that pass one."""

    count: int
    in_features: int
    out_features: int
    tokens: Literal["image", "text", "both", "vector"]


def adapted_layers(config: DiTConfig, lora: LoraTraining) -> list[AdaptedLayers]:
    """One entry per target that the network has."""
    h, m = config.hidden_size, config.mlp_size
    in_block: dict[str, tuple[int, int]] = {
        "attn_qkv": (h, 3 * h),
        "attn_proj": (h, h),
        "mlp.fc1": (h, m),
        "mlp.fc2": (m, h),
        "mod.linear": (h, 6 * h),
        "linear1": (h, 3 * h + m),
        "linear2": (h + m, h),
        "modulation.linear": (h, 3 * h),
    }
    found = []
    for target in lora.targets:
        stream, _, layer = target.partition("_")
        is_single = target in in_block
        count = config.num_single_layers if is_single else config.num_layers
        tokens: Literal["image", "text", "both", "vector"] = "image" if stream == "img" else "text"
        if target.endswith("mod.linear") or target == "modulation.linear":
            tokens = "vector"
        elif is_single:
            tokens = "both"
        sizes = in_block[target if is_single else layer]
        found.append(AdaptedLayers(count, *sizes, tokens))
    return found


def num_lora_parameters(config: DiTConfig, lora: LoraTraining) -> int:
    return sum(
        each.count * lora.rank * (each.in_features + each.out_features)
        for each in adapted_layers(config, lora)
    )


def lora_forward_flops(
    config: DiTConfig, lora: LoraTraining, *, num_image_tokens: int, num_text_tokens: int
) -> int:
    """What the adapters add to the forward pass of one sample."""
    tokens = {
        "image": num_image_tokens,
        "text": num_text_tokens,
        "both": num_image_tokens + num_text_tokens,
        "vector": 1,
    }
    multiply_adds = sum(
        each.count * lora.rank * (each.in_features + each.out_features) * tokens[each.tokens]
        for each in adapted_layers(config, lora)
    )
    return 2 * multiply_adds
