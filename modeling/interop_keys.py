"""How the tensors of diffusers' video DiT are cut out of the original ones.

Ours have the original names. Most tensors differ by name only; fused projections are split by
rows, and the last modulation's halves stand in the other order. The VAE's names are the same.
"""

from dataclasses import dataclass

from modeling.dit_config import DiTConfig

Rows = tuple[int, int]


@dataclass(frozen=True)
class TensorMap:
    """The diffusers tensor `name` is these row ranges of `original`, one after the other."""

    name: str
    original: str
    rows: tuple[Rows, ...]


def dit_tensor_maps(config: DiTConfig) -> list[TensorMap]:
    """Every tensor of the diffusers layout, in the order of the original one."""
    width, mlp = config.hidden_size, config.mlp_size
    maps = _Maps()
    maps.linear("img_in.proj", "x_embedder.proj", width)
    _refiner(maps, config)
    _scalar_embedder(maps, "time_in", "time_text_embed.timestep_embedder", width)
    maps.linear("vector_in.in_layer", "time_text_embed.text_embedder.linear_1", width)
    maps.linear("vector_in.out_layer", "time_text_embed.text_embedder.linear_2", width)
    if config.guidance_embeds:
        _scalar_embedder(maps, "guidance_in", "time_text_embed.guidance_embedder", width)
    for i in range(config.num_layers):
        _double_block(maps, f"double_blocks.{i}.", f"transformer_blocks.{i}.", config)
    for i in range(config.num_single_layers):
        ours, theirs = f"single_blocks.{i}.", f"single_transformer_blocks.{i}."
        parts = [(f"{theirs}attn.to_{x}", width) for x in "qkv"] + [(f"{theirs}proj_mlp", mlp)]
        maps.split(f"{ours}linear1", parts)
        maps.linear(f"{ours}linear2", f"{theirs}proj_out", width)
        for x in "qk":
            maps.weight(f"{ours}{x}_norm", f"{theirs}attn.norm_{x}", config.attention_head_dim)
        maps.linear(f"{ours}modulation.linear", f"{theirs}norm.linear", 3 * width)
    patch_values = config.patch_size_t * config.patch_size**2 * config.out_channels
    maps.linear("final_layer.linear", "proj_out", patch_values)
    # Original: shift, scale. diffusers: scale, shift.
    swapped = ((width, 2 * width), (0, width))
    maps.add("final_layer.adaLN_modulation.1", "norm_out.linear", swapped)
    return maps.tensors


class _Maps:
    """Collects maps; `linear` and `split` stand for a weight and a bias."""

    def __init__(self) -> None:
        self.tensors: list[TensorMap] = []

    def add(self, original: str, name: str, rows: tuple[Rows, ...]) -> None:
        for kind in ("weight", "bias"):
            self.tensors.append(TensorMap(f"{name}.{kind}", f"{original}.{kind}", rows))

    def linear(self, original: str, name: str, num_rows: int) -> None:
        self.add(original, name, ((0, num_rows),))

    def weight(self, original: str, name: str, num_rows: int) -> None:
        self.tensors.append(TensorMap(f"{name}.weight", f"{original}.weight", ((0, num_rows),)))

    def split(self, original: str, parts: list[tuple[str, int]]) -> None:
        start = 0
        for name, num_rows in parts:
            self.add(original, name, ((start, start + num_rows),))
            start += num_rows


def _scalar_embedder(maps: _Maps, original: str, name: str, width: int) -> None:
    maps.linear(f"{original}.mlp.0", f"{name}.linear_1", width)
    maps.linear(f"{original}.mlp.2", f"{name}.linear_2", width)


def _refiner(maps: _Maps, config: DiTConfig) -> None:
    width = config.hidden_size
    embed = "context_embedder.time_text_embed"
    maps.linear("txt_in.input_embedder", "context_embedder.proj_in", width)
    _scalar_embedder(maps, "txt_in.t_embedder", f"{embed}.timestep_embedder", width)
    for layer in ("linear_1", "linear_2"):
        maps.linear(f"txt_in.c_embedder.{layer}", f"{embed}.text_embedder.{layer}", width)
    for i in range(config.num_refiner_layers):
        ours = f"txt_in.individual_token_refiner.blocks.{i}."
        theirs = f"context_embedder.token_refiner.refiner_blocks.{i}."
        for norm in ("norm1", "norm2"):
            maps.linear(ours + norm, theirs + norm, width)
        maps.split(f"{ours}self_attn_qkv", [(f"{theirs}attn.to_{x}", width) for x in "qkv"])
        maps.linear(f"{ours}self_attn_proj", f"{theirs}attn.to_out.0", width)
        maps.linear(f"{ours}mlp.fc1", f"{theirs}ff.net.0.proj", config.mlp_size)
        maps.linear(f"{ours}mlp.fc2", f"{theirs}ff.net.2", width)
        maps.linear(f"{ours}adaLN_modulation.1", f"{theirs}norm_out.linear", 2 * width)


def _double_block(maps: _Maps, ours: str, theirs: str, config: DiTConfig) -> None:
    width = config.hidden_size
    streams = (
        ("img", "norm1", "to_{}", "norm_{}", "to_out.0", "ff"),
        ("txt", "norm1_context", "add_{}_proj", "norm_added_{}", "to_add_out", "ff_context"),
    )
    for stream, modulation, projection, norm, out, mlp in streams:
        maps.linear(f"{ours}{stream}_mod.linear", f"{theirs}{modulation}.linear", 6 * width)
        parts = [(f"{theirs}attn.{projection.format(x)}", width) for x in "qkv"]
        maps.split(f"{ours}{stream}_attn_qkv", parts)
        for x in "qk":
            maps.weight(
                f"{ours}{stream}_attn_{x}_norm",
                f"{theirs}attn.{norm.format(x)}",
                config.attention_head_dim,
            )
        maps.linear(f"{ours}{stream}_attn_proj", f"{theirs}attn.{out}", width)
        maps.linear(f"{ours}{stream}_mlp.fc1", f"{theirs}{mlp}.net.0.proj", config.mlp_size)
        maps.linear(f"{ours}{stream}_mlp.fc2", f"{theirs}{mlp}.net.2", width)
