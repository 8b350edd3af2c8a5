"""Things to look at: sampled clips and a grid of their frames; clips above their reconstruction.

Shape suffixes: B batch, C channels, T frames, H height, W width.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from modeling.evaluate.samples import Sample
from modeling.evaluate.subject import DitSubject, VaeSubject
from modeling.evaluate.vae_fidelity import round_trip
from modeling.sample import write_image, write_video
from modeling.sampler import Sampler, SampleRequest
from modeling.train.parts import to_video

_FPS = 24
_GRID_COLUMNS = 4
_MAX_CLIPS = 4


def sampled_clips(
    subject: DitSubject, requests: Sequence[SampleRequest], folder: Path
) -> list[Path]:
    """Per weights: one clip of each request, and a grid of their frames (a row a request)."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, network in subject.networks.items():
        sampler = Sampler(network, subject.vae, subject.text_encoder)
        rows = []
        for number, request in enumerate(requests):
            clip_THWC = torch.cat(list(sampler.frames(sampler.latent(request))))
            written.append(_write(folder / f"{name}-{number}", clip_THWC))
            columns = sorted(
                {k * (len(clip_THWC) - 1) // (_GRID_COLUMNS - 1) for k in range(_GRID_COLUMNS)}
            )
            rows.append(torch.cat([clip_THWC[column] for column in columns], dim=1))
        grid = folder / f"{name}-grid.png"
        write_image(grid, torch.cat(rows, dim=0))
        written.append(grid)
    return written


def reconstructed_clips(
    subject: VaeSubject,
    samples: Sequence[Sample],
    folder: Path,
    *,
    dtype: torch.dtype,
    tile_above_pixels: int,
) -> list[Path]:
    """Per weights: up to four samples side by side, each above its reconstruction."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, network in subject.networks.items():
        device = next(network.parameters()).device
        pairs = []
        for sample in samples[:_MAX_CLIPS]:
            video = to_video(sample.tensors["pixels"], device)
            decoded = round_trip(network, video, dtype=dtype, tile_above_pixels=tile_above_pixels)
            pairs.append(torch.cat([_levels(video), _levels(decoded)], dim=1))
        written.append(_write(folder / name, torch.cat(pairs, dim=2)))
    return written


def _levels(video_BCTHW: Tensor) -> Tensor:
    """(1, C, T, H, W) in [-1, 1] to (T, H, W, C) of uint8 on the CPU."""
    levels = ((video_BCTHW[0].float().clamp(-1, 1) + 1) * 127.5).round()
    return levels.to(torch.uint8).permute(1, 2, 3, 0).cpu()


def _write(stem: Path, frames_THWC: Tensor) -> Path:
    if len(frames_THWC) == 1:
        path = stem.with_name(f"{stem.name}.png")
        write_image(path, frames_THWC[0])
    else:
        path = stem.with_name(f"{stem.name}.mp4")
        write_video(path, iter([frames_THWC]), fps=_FPS)
    return path
