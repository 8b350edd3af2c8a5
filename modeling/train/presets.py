"""Which recipe a run takes that names none: by what it trains and on what machine."""

from modeling.train.config import Kind

CPU_PRESETS: dict[Kind, str] = {"dit": "dit_debug", "vae": "vae_debug"}
GPU_PRESETS: dict[Kind, str] = {"dit": "dit_one_gpu", "vae": "vae_one_gpu"}


def preset_for(kind: Kind, *, has_gpu: bool) -> str:
    return (GPU_PRESETS if has_gpu else CPU_PRESETS)[kind]
