"""Clips to look at while a run goes on: samples of a DiT, reconstructions of a VAE.

Shape suffixes: B batch, C channels, T frames, H height, W width.
"""

from pathlib import Path

import torch
from torch import Tensor

from modeling.dit import VideoDiT
from modeling.sample import write_image, write_video
from modeling.sampler import Sampler, SampleRequest
from modeling.text_encoder import TextEncoder
from modeling.train.config import PreviewConfig
from modeling.vae import CausalVAE

_FPS = 24
_MAX_CLIPS = 4


def sample_clips(
    dit: VideoDiT,
    vae: CausalVAE,
    text_encoder: TextEncoder,
    config: PreviewConfig,
    folder: Path,
    *,
    step: int,
    seed: int,
) -> list[Path]:
    """One file per prompt, named by step and number; the same seed for all steps."""
    sampler = Sampler(dit, vae, text_encoder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, prompt in enumerate(config.prompts):
        request = SampleRequest(
            prompt=prompt,
            height=config.height,
            width=config.width,
            num_frames=config.num_frames,
            num_steps=config.num_steps,
            seed=seed,
        )
        frames = sampler.frames(sampler.latent(request))
        name = f"step-{step:08d}-{number}"
        if config.num_frames == 1:
            path = folder / f"{name}.png"
            write_image(path, next(frames)[0])
        else:
            path = folder / f"{name}.mp4"
            write_video(path, frames, fps=_FPS)
        written.append(path)
    return written


@torch.no_grad()
def reconstruct(vae: CausalVAE, video_BCTHW: Tensor, folder: Path, *, step: int) -> list[Path]:
    """Up to four clips, each above its reconstruction, side by side in one file."""
    video_BCTHW = video_BCTHW[:_MAX_CLIPS]
    decoded_BCTHW = vae.decode(vae.encode(video_BCTHW).mode())
    pairs_BCTHW = torch.cat([video_BCTHW, decoded_BCTHW.float()], dim=3)
    row_CTHW = torch.cat(list(pairs_BCTHW), dim=3)
    levels = ((row_CTHW.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    frames_THWC = levels.permute(1, 2, 3, 0).cpu()
    folder.mkdir(parents=True, exist_ok=True)
    if len(frames_THWC) == 1:
        path = folder / f"step-{step:08d}.png"
        write_image(path, frames_THWC[0])
    else:
        path = folder / f"step-{step:08d}.mp4"
        write_video(path, iter([frames_THWC]), fps=_FPS)
    return [path]
