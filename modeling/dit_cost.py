"""Exact parameter and FLOP counts of a DiT from its config alone.

FLOPs are those of the matrix products and of full attention in one forward pass, a multiply-add
being two; norms, activations and other elementwise work are left out. Training costs three
times as much (forward, and two products per product backward), without recomputation.
"""

import math

from modeling.dit_config import DiTConfig

_SINUSOID_SIZE = 256


def num_parameters(config: DiTConfig) -> int:
    h, m, e = config.hidden_size, config.mlp_size, config.attention_head_dim
    patch_values = math.prod(config.patch)
    mlp = 2 * h * m + m + h
    attention = 4 * h * h + 4 * h
    scalar_embedder = _linear(_SINUSOID_SIZE, h) + _linear(h, h)
    vector_embedder = _linear(config.pooled_projection_dim, h) + _linear(h, h)
    prompt_embedder = _linear(config.text_embed_dim, h) + _linear(h, h)
    refiner_block = attention + mlp + 4 * h + _linear(h, 2 * h)
    refiner = _linear(config.text_embed_dim, h) + scalar_embedder + prompt_embedder
    double = 2 * (attention + mlp + 2 * e + _linear(h, 6 * h))
    single = _linear(h, 3 * h + m) + _linear(h + m, h) + 2 * e + _linear(h, 3 * h)
    return (
        _linear(config.in_channels * patch_values, h)
        + refiner
        + config.num_refiner_layers * refiner_block
        + scalar_embedder * (2 if config.guidance_embeds else 1)
        + vector_embedder
        + config.num_layers * double
        + config.num_single_layers * single
        + _linear(h, 2 * h)
        + _linear(h, patch_values * config.out_channels)
    )


def forward_flops(config: DiTConfig, *, num_image_tokens: int, num_text_tokens: int) -> int:
    """FLOPs of one sample's forward pass."""
    h, m = config.hidden_size, config.mlp_size
    n, num_text = num_image_tokens, num_text_tokens
    total = n + num_text
    patch_values = math.prod(config.patch)
    scalar_embedder = _SINUSOID_SIZE * h + h * h
    per_token = 4 * h * h + 2 * h * m
    double = total * per_token + 2 * total * total * h + 2 * 6 * h * h
    single = total * per_token + 2 * total * total * h + 3 * h * h
    refiner_block = num_text * per_token + 2 * num_text * num_text * h + 2 * h * h
    multiply_adds = (
        n * config.in_channels * patch_values * h
        + num_text * config.text_embed_dim * h
        + scalar_embedder
        + config.text_embed_dim * h
        + h * h
        + config.num_refiner_layers * refiner_block
        + scalar_embedder * (2 if config.guidance_embeds else 1)
        + config.pooled_projection_dim * h
        + h * h
        + config.num_layers * double
        + config.num_single_layers * single
        + 2 * h * h
        + n * h * patch_values * config.out_channels
    )
    return 2 * multiply_adds


def _linear(in_features: int, out_features: int) -> int:
    return in_features * out_features + out_features
