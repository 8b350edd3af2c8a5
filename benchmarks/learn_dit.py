"""Train small diffusion transformers in the latents of the VAE that `learn_vae` made.

`run_dit`: one small model against the clock, with held-out loss and samples. `run_scaling`: five
sizes, each with the same wall time, whose metrics feed `python -m modeling.scaling fit`. Both are
small-scale: 320 latent tokens, minutes, one GPU.

Shape suffixes: B batch, C channels, T frames, H height, W width, L text tokens, D width.
"""

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.learn_data import HeldOut, TrainingMedia
from modeling.dit import DiTConfig, VideoDiT
from modeling.dit_cost import forward_flops, num_parameters
from modeling.evaluate.fidelity import to_levels
from modeling.flow_matching import (
    FlowConfig,
    integrate,
    interpolate,
    sample_sigma,
    sampling_sigmas,
    velocity_loss,
)
from modeling.scaling import LossCurve, fit, plot
from modeling.vae import CausalVAE, VAEConfig

logger = logging.getLogger(__name__)

_FLOW = FlowConfig(stratified=True)
_IMAGE_SHARE = 0.2
_TEXT_DROPOUT = 0.1
_BACKWARD_FACTOR = 3  # training costs three forward passes


@dataclass(frozen=True)
class Sizes:
    """What is trained on: clips of num_frames x side x side pixels."""

    num_frames: int
    side: int
    num_clips: int
    batch_size: int


NORMAL = Sizes(num_frames=17, side=128, num_clips=1024, batch_size=64)
TINY = Sizes(num_frames=5, side=32, num_clips=8, batch_size=4)


def dit_config(
    num_heads: int, num_layers: int, vae: VAEConfig, *, text_width: int, pooled_width: int
) -> DiTConfig:
    """Heads of 64, one dual-stream block to two single-stream ones."""
    return DiTConfig(
        in_channels=vae.latent_channels,
        out_channels=vae.latent_channels,
        num_attention_heads=num_heads,
        attention_head_dim=64,
        rope_axes_dim=(8, 28, 28),
        num_layers=num_layers,
        num_single_layers=2 * num_layers,
        guidance_embeds=False,
        text_embed_dim=text_width,
        pooled_projection_dim=pooled_width,
    )


@dataclass(frozen=True)
class Captions:
    """Encoded captions, one row per source; the last row is the empty caption."""

    states_NLD: Tensor
    lengths_N: Tensor
    pooled_ND: Tensor

    @classmethod
    def read(cls, bundle: Path, device: torch.device) -> "Captions":
        tensors = load_file(bundle / "text.safetensors")
        return cls(
            tensors["states_NLD"].float().to(device),
            tensors["lengths_N"],
            tensors["pooled_ND"].float().to(device),
        )

    def rows(self, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """states_BLD, lengths_B (on the CPU), pooled_BD."""
        on_device = numbers.to(self.states_NLD.device)
        return self.states_NLD[on_device], self.lengths_N[numbers], self.pooled_ND[on_device]


class Latents:
    """Latents of random training clips and images, scaled, on the device; and of held-out clips."""

    def __init__(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        self.videos_NCTHW = tensors["videos_NCTHW"].to(device)
        self.images_NCTHW = tensors["images_NCTHW"].to(device)
        self.held_out_NCTHW = tensors["held_out_NCTHW"].to(device)
        self.video_sources_N = tensors["video_sources_N"].cpu()
        self.image_sources_N = tensors["image_sources_N"].cpu()

    @classmethod
    def read_or_make(
        cls, file: Path, bundle: Path, vae: CausalVAE, device: torch.device, sizes: Sizes
    ) -> "Latents":
        """From the file, if an earlier command wrote it."""
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file(_encode(bundle, vae, device, sizes), file)
        return cls(load_file(file), device)

    def batch(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents and their sources' numbers; images or videos, as drawn."""
        is_image = float(torch.rand((), generator=generator)) < _IMAGE_SHARE
        latents = self.images_NCTHW if is_image else self.videos_NCTHW
        sources_N = self.image_sources_N if is_image else self.video_sources_N
        chosen = torch.randint(len(latents), (batch_size,), generator=generator)
        return latents[chosen.to(latents.device)].float(), sources_N[chosen]


@torch.no_grad()
def _encode(bundle: Path, vae: CausalVAE, device: torch.device, sizes: Sizes) -> dict[str, Tensor]:
    media = TrainingMedia(bundle, device, seed=7)
    scale = vae.config.scaling_factor
    videos, images = [], []
    video_sources: list[int] = []
    image_sources: list[int] = []
    chunk = min(sizes.batch_size, 32)
    for _ in range(sizes.num_clips // chunk):
        clip, sources = media.batch(chunk, sizes.num_frames, sizes.side, max_interval=2)
        photo, photo_sources = media.batch(chunk, 1, sizes.side)
        with torch.autocast(device.type, torch.bfloat16):
            videos.append(vae.encode(clip).mode().bfloat16() * scale)
            images.append(vae.encode(photo).mode().bfloat16() * scale)
        video_sources += sources
        image_sources += photo_sources
    size = (sizes.num_frames, sizes.side, sizes.side)
    held_out = [
        vae.encode(nn.functional.interpolate(clip[:, :, : sizes.num_frames], size)).mode() * scale
        for clip in HeldOut.read(bundle, device).clips
    ]
    return {
        "videos_NCTHW": torch.cat(videos),
        "images_NCTHW": torch.cat(images),
        "held_out_NCTHW": torch.cat(held_out).bfloat16(),
        "video_sources_N": torch.tensor(video_sources),
        "image_sources_N": torch.tensor(image_sources),
    }


class DitTraining:
    """One model, trained until its time is up."""

    def __init__(
        self, config: DiTConfig, latents: Latents, captions: Captions, device: torch.device
    ) -> None:
        torch.manual_seed(0)
        self.config, self._latents, self._captions = config, latents, captions
        self._device = device
        self.model = VideoDiT(config).to(device)
        self._rate = 6e-4 * (256 / config.hidden_size) ** 0.5
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(),
            self._rate,
            betas=(0.9, 0.95),
            weight_decay=0.01,
            fused=device.type == "cuda",
        )
        self._generator = torch.Generator().manual_seed(2)
        self._noise = torch.Generator(device).manual_seed(3)
        self.metrics: list[dict[str, float]] = []

    def train(self, seconds: float, batch_size: int) -> None:
        """Constant rate after a warm-up, so that every point of the curve is comparable."""
        start, step, tokens, flops = time.perf_counter(), 0, 0, 0
        pending: list[tuple[int, Tensor]] = []
        while time.perf_counter() - start < seconds:
            for group in self._optimizer.param_groups:
                group["lr"] = self._rate * min(1.0, (step + 1) / 100)
            latent, sources = self._latents.batch(batch_size, self._generator)
            loss = self._loss(latent, sources)
            self._optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self._optimizer.step()
            num_tokens = latent[0, 0].numel() // 4
            tokens += num_tokens * batch_size
            flops += (
                _BACKWARD_FACTOR
                * batch_size
                * forward_flops(
                    self.config,
                    num_image_tokens=num_tokens,
                    num_text_tokens=int(self._captions.lengths_N.max()),
                )
            )
            step += 1
            pending.append((latent.shape[2], loss.detach()))
            if len(pending) == 10:
                self._log(step, pending, tokens, flops, time.perf_counter() - start)
                pending = []

    def _log(
        self, step: int, pending: list[tuple[int, Tensor]], tokens: int, flops: int, seconds: float
    ) -> None:
        longest = max(frames for frames, _ in pending)
        videos = [float(loss) for frames, loss in pending if frames == longest and frames > 1]
        if not videos:
            return  # images only: their loss is another quantity
        self.metrics.append(
            {
                "step": step,
                "loss": sum(videos) / len(videos),
                "tokens": tokens,
                "flops": flops,
                "params": num_parameters(self.config),
                "seconds": seconds,
            }
        )

    def _loss(self, latent: Tensor, sources: Tensor) -> Tensor:
        sigma_B = sample_sigma(len(latent), config=_FLOW, generator=self._generator)
        sigma_B = sigma_B.to(self._device)
        noise = torch.randn(latent.shape, generator=self._noise, device=self._device)
        dropped = torch.rand(len(sources), generator=self._generator) < _TEXT_DROPOUT
        empty = len(self._captions.lengths_N) - 1
        conditions = self._captions.rows(torch.where(dropped, empty, sources))
        with torch.autocast(self._device.type, torch.bfloat16):
            velocity = self.model(interpolate(latent, noise, sigma_B), sigma_B, *conditions)
        return velocity_loss(velocity, latent, noise).mean()

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Mean over ten even sigmas of the loss on clips of unseen sources, without caption."""
        latent = self._latents.held_out_NCTHW.float()
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(4)).to(
            self._device
        )
        empty = torch.full((len(latent),), len(self._captions.lengths_N) - 1)
        losses = []
        for tenth in range(10):
            sigma_B = torch.full((len(latent),), (tenth + 0.5) / 10, device=self._device)
            with torch.autocast(self._device.type, torch.bfloat16):
                velocity = self.model(
                    interpolate(latent, noise, sigma_B), sigma_B, *self._captions.rows(empty)
                )
            losses.append(float(velocity_loss(velocity, latent, noise).mean()))
        return sum(losses) / len(losses)

    @torch.no_grad()
    def sample(self, sources: list[int], seed: int = 5) -> Tensor:
        """Latents of one clip per source caption: 30 Euler steps, shift 3, no guidance."""
        shape = (len(sources), *self._latents.videos_NCTHW.shape[1:])
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        conditions = self._captions.rows(torch.tensor(sources))

        def velocity_at(x: Tensor, sigma: float) -> Tensor:
            sigma_B = torch.full((len(x),), sigma, device=self._device)
            with torch.autocast(self._device.type, torch.bfloat16):
                velocity: Tensor = self.model(x, sigma_B, *conditions)
            return velocity.float()

        return integrate(velocity_at, noise.to(self._device), sampling_sigmas(30, 3.0))


def load_vae(folder: Path, device: torch.device) -> CausalVAE:
    """The VAE that `learn_vae` saved."""
    vae = CausalVAE(VAEConfig.model_validate_json((folder / "config.json").read_text()))
    vae.load_state_dict(load_file(folder / "model.safetensors"))
    return vae.to(device).float().eval().requires_grad_(requires_grad=False)


def run_dit(
    bundle: Path, out: Path, vae_folder: Path, *, minutes: float, device: torch.device, tiny: bool
) -> dict[str, Any]:
    """Train one small DiT; write its metrics, held-out loss, weights and a sheet of samples."""
    sizes = TINY if tiny else NORMAL
    vae, captions = load_vae(vae_folder, device), Captions.read(bundle, device)
    latents = Latents.read_or_make(out / "latents.safetensors", bundle, vae, device, sizes)
    widths = {
        "text_width": captions.states_NLD.shape[2],
        "pooled_width": captions.pooled_ND.shape[1],
    }
    config = dit_config(1 if tiny else 6, 1 if tiny else 4, vae.config, **widths)
    training = DitTraining(config, latents, captions, device)
    before = training.held_out_loss()
    training.train(minutes * 60, sizes.batch_size)
    out.mkdir(parents=True, exist_ok=True)
    _write_metrics(training, out / "dit_metrics.jsonl")
    report = {
        "num_parameters": num_parameters(config),
        "steps": training.metrics[-1]["step"] if training.metrics else 0,
        "tokens": training.metrics[-1]["tokens"] if training.metrics else 0,
        "training_loss_last": training.metrics[-1]["loss"] if training.metrics else None,
        "held_out_loss_before": before,
        "held_out_loss_after": training.held_out_loss(),
        "captions": [0, 1, 2, 4],
    }
    (out / "dit_report.json").write_text(json.dumps(report, indent=2) + "\n")
    (out / "dit_config.json").write_text(config.model_dump_json(indent=2) + "\n")
    half = {k: v.half().contiguous().cpu() for k, v in training.model.state_dict().items()}
    save_file(half, out / "dit.safetensors")
    _save_samples(training.sample([0, 1, 2, 4]), vae, out / "dit_samples.jpg")
    logger.info("dit: %s", json.dumps(report))
    return report


@torch.no_grad()
def _save_samples(latent: Tensor, vae: CausalVAE, path: Path) -> None:
    """One row per caption: five frames of the clip, evenly spaced."""
    from PIL import Image

    video = vae.decode(latent / vae.config.scaling_factor)
    chosen = torch.linspace(0, video.shape[2] - 1, 5).round().long().to(video.device)
    frames_BTCHW = to_levels(video[:, :, chosen]).byte().cpu().transpose(1, 2)
    rows = [torch.cat(list(clip), dim=2) for clip in frames_BTCHW]
    Image.fromarray(torch.cat(rows, dim=1).permute(1, 2, 0).numpy()).save(path, quality=92)


def _write_metrics(training: DitTraining, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in training.metrics))


# (heads of 64, dual-stream blocks): about 1, 3, 8, 21 and 55 million parameters.
SCALING_SIZES = ((1, 2), (2, 2), (3, 3), (5, 3), (7, 4))


def run_scaling(
    bundle: Path, out: Path, vae_folder: Path, *, minutes: float, device: torch.device, tiny: bool
) -> None:
    """Train the five sizes for equal times, then fit the law."""
    sizes = TINY if tiny else NORMAL
    vae, captions = load_vae(vae_folder, device), Captions.read(bundle, device)
    latents = Latents.read_or_make(out / "latents.safetensors", bundle, vae, device, sizes)
    folders = []
    for num_heads, num_layers in SCALING_SIZES[: 3 if tiny else None]:
        config = dit_config(
            num_heads,
            num_layers,
            vae.config,
            text_width=captions.states_NLD.shape[2],
            pooled_width=captions.pooled_ND.shape[1],
        )
        training = DitTraining(config, latents, captions, device)
        training.train(minutes * 60 / len(SCALING_SIZES), sizes.batch_size)
        folders.append(out / f"scaling-{num_parameters(config) / 1e6:05.1f}m")
        _write_metrics(training, folders[-1] / "metrics.jsonl")
        logger.info("%s: %s", folders[-1].name, training.metrics[-1:])
    try:
        runs = [LossCurve.read(folder) for folder in folders]
        plot(runs, fit(runs), out / "scaling.png")
    except ValueError as error:
        logger.warning("no fit: %s", error)
