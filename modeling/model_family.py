"""The seven sizes of the scaling study, 93 M to 6.6 B parameters.

HunyuanVideo's scaling study (arXiv:2412.03603, section 4.4) names its models S/2 to G/2 and gives
92 M and 6.6 B as the ends; widths and depths are not published, and its networks are another
architecture (cross-attention, v-prediction). Here the same names stand for our own sizes of the
dual-stream network: head width 128, about one dual-stream block to two single-stream ones.
"""

from modeling.dit_config import DiTConfig


def _member(num_heads: int, num_layers: int, num_single_layers: int) -> DiTConfig:
    return DiTConfig(
        num_attention_heads=num_heads,
        num_layers=num_layers,
        num_single_layers=num_single_layers,
        guidance_embeds=False,
    )


MODEL_FAMILY: dict[str, DiTConfig] = {
    "S/2": _member(4, 5, 8),
    "SP/2": _member(5, 6, 12),
    "B/2": _member(6, 8, 16),
    "L/2": _member(8, 10, 20),
    "XL/2": _member(11, 10, 20),
    "XXL/2": _member(13, 16, 32),
    "G/2": _member(18, 18, 37),
}
