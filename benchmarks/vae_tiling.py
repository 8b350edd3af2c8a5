"""How far tiled encoding and decoding lie from untiled ones, and whether tiles leave seams.

Trains the tiny VAE on clips of moving shapes drawn here, or takes a trained one from a diffusers
folder. Run: python -m benchmarks.vae_tiling [--vae FOLDER] [--steps N]
"""

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from modeling.interop import from_diffusers
from modeling.vae import VAE_CONFIGS, CausalVAE
from modeling.vae_tiling import TilingConfig


def moving_shapes(
    num_clips: int, num_frames: int, height: int, width: int, *, generator: torch.Generator
) -> Tensor:
    """Clips in [-1, 1], (B, 3, T, H, W): a drifting pattern of waves and some colored discs."""
    time_T = torch.arange(num_frames).view(-1, 1, 1)
    y_H, x_W = torch.arange(height).view(1, -1, 1), torch.arange(width).view(1, 1, -1)

    def number(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=generator).item()

    clips = []
    for _ in range(num_clips):
        waves = [
            0.4
            * torch.sin(
                number(-0.2, 0.2) * x_W
                + number(-0.2, 0.2) * y_H
                + number(-0.3, 0.3) * time_T
                + number(0, 6)
            )
            for _ in range(3)
        ]
        clip = torch.stack(waves)
        for _ in range(4):
            center_x = number(0, width) + number(-1.5, 1.5) * time_T
            center_y = number(0, height) + number(-1.5, 1.5) * time_T
            radius = number(6, 20)
            distance = ((x_W - center_x) ** 2 + (y_H - center_y) ** 2).sqrt()
            inside = torch.sigmoid(radius - distance)
            color = torch.tensor([number(-0.9, 0.9) for _ in range(3)]).view(3, 1, 1, 1)
            clip = clip * (1 - inside) + color * inside
        clips.append(clip)
    return torch.stack(clips)


def train(num_steps: int, generator: torch.Generator) -> CausalVAE:
    torch.manual_seed(0)
    vae = CausalVAE(VAE_CONFIGS["tiny"])
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=num_steps)
    for step in range(num_steps):
        video = moving_shapes(1, 9, 48, 48, generator=generator)
        reconstruction, posterior = vae(video, generator)
        loss = F.l1_loss(reconstruction, video) + 1e-6 * posterior.kl().mean() / 100
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == num_steps - 1:
            print(f"step {step}: loss {loss.item():.4f}", flush=True)
    return vae.eval()


def psnr_db(a: Tensor, b: Tensor) -> float:
    """Peak signal to noise of values in [-1, 1]."""
    return 10 * math.log10(4 / float((a - b).square().mean()))


def seam_ratio(tiled: Tensor, whole: Tensor, *, dim: int, stride: int, overlap: int) -> float:
    """Step across the tile borders (where a blend starts or ends) over the untiled step there."""
    size = whole.shape[dim]
    borders = [b for s in range(stride, size, stride) for b in (s, s + overlap) if b < size]
    index = torch.tensor(borders)

    def step(x: Tensor) -> float:
        return float((x.index_select(dim, index) - x.index_select(dim, index - 1)).abs().mean())

    return step(tiled) / step(whole)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--vae", type=Path, help="diffusers folder of a trained VAE")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--tile", type=int, default=64, help="side of a tile, pixels")
    parser.add_argument("--size", type=int, default=112, help="side of the test clips, pixels")
    parser.add_argument("--num-frames", type=int, default=29)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    if arguments.vae is None:
        vae = train(arguments.steps, generator)
    else:
        loaded = from_diffusers(arguments.vae, dtype=torch.float32)
        if not isinstance(loaded, CausalVAE):
            raise SystemExit(f"{arguments.vae} holds no VAE")
        vae = loaded
    tile, stride = arguments.tile, arguments.tile * 3 // 4
    tiling = TilingConfig(
        height=tile,
        width=tile,
        num_frames=16,
        stride_height=stride,
        stride_width=stride,
        stride_num_frames=12,
    )
    size = arguments.size
    video = moving_shapes(1, arguments.num_frames, size, size, generator=generator)
    with torch.no_grad():
        latent = vae.encode(video).mode()
        whole = vae.decode(latent)
        vae.enable_tiling(tiling)
        tiled_latent, tiled = vae.encode(video).mode(), vae.decode(latent)
        tiled_both = vae.decode(tiled_latent)
    print(f"untiled reconstruction       {psnr_db(whole, video):6.2f} dB")
    print(f"tiled encode and decode      {psnr_db(tiled_both, video):6.2f} dB")
    print(f"tiled against untiled decode {psnr_db(tiled, whole):6.2f} dB")
    overlap = tile - stride
    for name, dim, step, width in (("time", 2, 12, 4), ("height", 3, stride, overlap)):
        ratio = seam_ratio(
            tiled[:, :, 1:] if dim == 2 else tiled,
            whole[:, :, 1:] if dim == 2 else whole,
            dim=dim,
            stride=step,
            overlap=width,
        )
        print(f"step across tile borders in {name}: {ratio:.3f} of the untiled step")


if __name__ == "__main__":
    main()
