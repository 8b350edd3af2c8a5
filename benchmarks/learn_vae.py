"""Train a small causal VAE against the clock and say what it gives back of media it never saw."""

import copy
import json
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.learn_data import HeldOut, TrainingMedia
from benchmarks.reconstruction import PcaAutoencoder, measure
from modeling import causal_conv
from modeling.discriminator import DiscriminatorConfig, PatchDiscriminator3d
from modeling.perceptual import FeatureDistance
from modeling.vae import CausalVAE, VAEConfig
from modeling.vae_layers import ResnetBlock
from modeling.vae_loss import NanGuard, VaeLoss, VaeLossConfig

logger = logging.getLogger(__name__)

# At most 15 MB in float16. Few groups: the norms then keep more of a clip's absolute brightness.
SMALL_VAE = VAEConfig(block_out_channels=(32, 64, 96, 96), layers_per_block=1, norm_num_groups=4)
TINY_VAE = VAEConfig(block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4)
_IMAGE_SHARE = 0.2  # image : video = 1 : 4, the paper's ratio


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum. `until` is the share of the time budget at which it ends."""

    until: float
    num_frames: int
    side: int
    batch_size: int


# About 2 million pixels a batch throughout; content counts more than size, so that most of the
# time goes to small crops and the last part only teaches the large ones.
CURRICULUM = (
    Stage(0.15, 9, 64, 48),
    Stage(0.50, 9, 128, 14),
    Stage(0.75, 17, 128, 8),
    Stage(1.0, 17, 256, 3),
)
# For a second run from the weights of a first.
CONTINUATION = (Stage(0.5, 17, 128, 8), Stage(1.0, 17, 256, 3))
TINY_CURRICULUM = (Stage(0.5, 5, 32, 2), Stage(1.0, 5, 64, 1))

# Starts in ten-thousandths of the time budget: VaeLoss is asked with that instead of a step.
# The packaged features' distance is several times LPIPS, so it gets a fifth of LPIPS's weight.
LOSS = VaeLossConfig(
    perceptual_weight=0.02,
    perceptual_frames=4,
    discriminator_start=7600,
    adversarial_start=8000,
)
_TRIED_RATES = (4e-4, 8e-4, 1.6e-3)
_TRIAL_SHARE = 0.025  # of the time budget, for each rate
_CONTINUED_RATE = 4e-4
_FIRST_LOGVAR = -6.0  # start with little noise in the latent: the KL weight asks for no more
_DISCRIMINATOR_RATE = 2e-4
_EMA_DECAY = 0.995


def _concatenated_padding(x_BCTHW: Tensor, padding_THW: tuple[int, int, int]) -> Tensor:
    """Replicate padding by concatenation: more copies, but no atomic adds in the backward."""
    for dim, before, after in (
        (2, padding_THW[0], 0),
        (3, padding_THW[1], padding_THW[1]),
        (4, padding_THW[2], padding_THW[2]),
    ):
        last = x_BCTHW.shape[dim] - 1
        head, tail = x_BCTHW.narrow(dim, 0, 1), x_BCTHW.narrow(dim, last, 1)
        x_BCTHW = torch.cat([head] * before + [x_BCTHW] + [tail] * after, dim=dim)
    return x_BCTHW


def fastest_layout(vae: CausalVAE, stage: Stage, device: torch.device) -> dict[str, float]:
    """Try both memory formats with both paddings, keep the fastest, return seconds a step."""
    seconds: dict[str, float] = {}
    paddings = {"replicate": causal_conv.pad_with_edges, "concatenate": _concatenated_padding}
    formats = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last_3d}
    video = torch.randn(
        stage.batch_size, 3, stage.num_frames, stage.side, stage.side, device=device
    )
    for format_name, memory_format in formats.items():
        vae.to(memory_format=memory_format)
        shaped = video.contiguous(memory_format=memory_format)
        for padding_name, padding in paddings.items():
            causal_conv.pad_with_edges = padding
            for attempt in range(5):
                if attempt == 2:  # two to warm up
                    _synchronize(device)
                    start = time.perf_counter()
                with torch.autocast(device.type, torch.bfloat16):
                    decoded, _ = vae(shaped)
                torch.autograd.backward(decoded.float().abs().mean())
                vae.zero_grad()
            _synchronize(device)
            seconds[f"{format_name}+{padding_name}"] = (time.perf_counter() - start) / 3
    best = min(seconds, key=seconds.__getitem__)
    vae.to(memory_format=formats[best.split("+")[0]])
    causal_conv.pad_with_edges = paddings[best.split("+")[1]]
    logger.info("seconds a step: %s", seconds)
    return seconds


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.no_grad()
def _follow(ema: nn.Module, model: nn.Module, step: int) -> None:
    """Exponential moving average, shorter at the start."""
    decay = min(_EMA_DECAY, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - decay)


def _rate(peak: float, progress: float, step: int) -> float:
    warm = min(1.0, (step + 1) / 100)
    return peak * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


@torch.no_grad()
def _start_simple(vae: CausalVAE) -> None:
    """Quiet latents, and residual branches that begin at zero: an almost linear network."""
    bias = vae.quant_conv.bias
    assert bias is not None
    bias[len(bias) // 2 :] = _FIRST_LOGVAR
    for module in vae.modules():
        if isinstance(module, ResnetBlock):
            module.conv2.conv.weight.zero_()


class VaeTraining:
    """One run: `train` until the time is up, `report` what was learned, `save` it."""

    def __init__(
        self,
        bundle: Path,
        out: Path,
        device: torch.device,
        *,
        tiny: bool,
        start_from: Path | None,
    ) -> None:
        torch.manual_seed(0)
        self._out, self._device = out, device
        self._curriculum = TINY_CURRICULUM if tiny else CURRICULUM
        self.media = TrainingMedia(bundle, device)
        self.held_out = HeldOut.read(bundle, device)
        if tiny:
            self.held_out = HeldOut(self.held_out.clips[:1], self.held_out.photos[:2])
        self.vae = CausalVAE(TINY_VAE if tiny else SMALL_VAE).to(device)
        self._peak_rate = _TRIED_RATES[0]
        self._must_try_rates = start_from is None
        if start_from is None:
            _start_simple(self.vae)
        else:
            self.vae.load_state_dict(load_file(start_from / "model.safetensors"))
            self._peak_rate = _CONTINUED_RATE
            self._curriculum = TINY_CURRICULUM if tiny else CONTINUATION
        self.layout_seconds = fastest_layout(self.vae, self._curriculum[-1], device)
        self.ema = copy.deepcopy(self.vae).requires_grad_(requires_grad=False).eval()
        width = 8 if tiny else 48
        self.discriminator = PatchDiscriminator3d(
            DiscriminatorConfig(base_channels=width, num_layers=3)
        ).to(device)
        perceptual = FeatureDistance.from_file(bundle / "perceptual.safetensors").to(device)
        self._loss = VaeLoss(LOSS, perceptual=perceptual, discriminator=self.discriminator)
        fused = device.type == "cuda"
        self._optimizer = torch.optim.AdamW(
            self.vae.parameters(), self._peak_rate, betas=(0.9, 0.98), weight_decay=0, fused=fused
        )
        self._judge_optimizer = torch.optim.AdamW(
            self.discriminator.parameters(), _DISCRIMINATOR_RATE, betas=(0.5, 0.9), fused=fused
        )
        self._guard = NanGuard()
        self._generator = torch.Generator().manual_seed(1 if start_from is None else 11)
        self._next: Tensor | None = None
        self.curve: list[dict[str, float]] = []
        self.rate_trials: dict[str, float] = {}

    def _try_rates(self, seconds: float) -> None:
        """Train the first stage with each rate from the same weights; keep the best rate."""
        weights = copy.deepcopy(self.vae.state_dict())
        state = copy.deepcopy(self._optimizer.state_dict())
        for step in range(12):  # the first steps choose kernels; no rate shall pay for that
            self._step(self._curriculum[0], 0.0, step)
        for rate in _TRIED_RATES:
            self.vae.load_state_dict(weights)
            self._optimizer.load_state_dict(copy.deepcopy(state))
            self._peak_rate = rate
            losses: list[float] = []
            start, step = time.perf_counter(), 0
            while not losses or time.perf_counter() - start < seconds:
                losses.append(self._step(self._curriculum[0], 0.0, step)["total"])
                step += 1
            tail = losses[-max(1, len(losses) // 3) :]
            self.rate_trials[f"{rate:g}"] = sum(tail) / len(tail)
            self.vae.load_state_dict(weights)
            self._optimizer.load_state_dict(copy.deepcopy(state))
        best = min(self.rate_trials, key=self.rate_trials.__getitem__)
        self._peak_rate = float(best)
        self.ema.load_state_dict(weights)
        logger.info("mean loss by rate: %s", self.rate_trials)

    def train(self, seconds: float) -> None:
        """Train for so long, the trials of rates included."""
        if self._must_try_rates:
            self._try_rates(seconds * _TRIAL_SHARE)
            seconds *= 1 - _TRIAL_SHARE * len(_TRIED_RATES)
        start = time.perf_counter()
        step, saved_at, stage_number = 0, start, -1
        while (progress := (time.perf_counter() - start) / seconds) < 1:
            number = next(n for n, s in enumerate(self._curriculum) if progress < s.until)
            if number != stage_number:
                stage_number = number
                logger.info("step %d: %s", step, self._curriculum[number])
            terms = self._step(self._curriculum[number], progress, step)
            if step % 20 == 0:
                row = {"step": float(step), "seconds": time.perf_counter() - start, **terms}
                row["stage"] = float(number)
                self.curve.append(row)
                if step % 200 == 0:
                    logger.info("step %d %s", step, {k: round(v, 4) for k, v in terms.items()})
            if time.perf_counter() - saved_at > 60:
                self.save()
                saved_at = time.perf_counter()
            step += 1
        _synchronize(self._device)
        logger.info("%d steps in %.0f s", step, time.perf_counter() - start)

    def _step(self, stage: Stage, progress: float, step: int) -> dict[str, float]:
        video = self._next if self._next is not None else self._draw(stage)
        clock = int(progress * 10_000)
        for group in self._optimizer.param_groups:
            group["lr"] = _rate(self._peak_rate, progress, step)
        self.discriminator.requires_grad_(requires_grad=False)
        with torch.autocast(self._device.type, torch.bfloat16):
            posterior = self.vae.encode(video)
            decoded = self.vae.decode(posterior.sample())
            terms = self._loss.generator(
                video,
                decoded,
                posterior,
                step=clock,
                last_layer=self.vae.decoder.conv_out.conv.weight,
            )
        self._optimizer.zero_grad()
        torch.autograd.backward(terms.total)
        norm = nn.utils.clip_grad_norm_(self.vae.parameters(), 1.0)
        self._next = self._draw(stage)  # while the device is busy; the next line waits for it
        values = terms.to_floats() | {"grad_norm": float(norm)}
        values["is_image"] = float(video.shape[2] == 1)
        if not self._guard.allows(values, step=step):
            return values
        self._optimizer.step()
        _follow(self.ema, self.vae, step)
        self.discriminator.requires_grad_(requires_grad=True)
        with torch.autocast(self._device.type, torch.bfloat16):
            judged = self._loss.discriminator(video, decoded, step=clock)
        if judged is not None:
            self._judge_optimizer.zero_grad()
            torch.autograd.backward(judged)
            nn.utils.clip_grad_norm_(self.discriminator.parameters(), 1.0)
            self._judge_optimizer.step()
            values["discriminator"] = float(judged.detach())
        return values

    def _draw(self, stage: Stage) -> Tensor:
        is_image = float(torch.rand((), generator=self._generator)) < _IMAGE_SHARE
        num_frames = 1 if is_image else stage.num_frames
        return self.media.batch(stage.batch_size, num_frames, stage.side)[0]

    def report(self) -> dict[str, Any]:
        """Fidelity of the averaged weights (float32) and of the linear autoencoder."""
        clips = self._curriculum[-1]
        fitting = [
            self.media.batch(8, clips.num_frames, clips.side, max_interval=1)[0] for _ in range(24)
        ]
        fitting += [self.media.batch(8, 1, clips.side)[0] for _ in range(24)]
        pca = PcaAutoencoder(fitting, self.vae.config.latent_channels)

        def reconstruct(video: Tensor) -> Tensor:
            decoded: Tensor = self.ema.decode(self.ema.encode(video).mode())
            return decoded

        sets = {"video": self.held_out.clips, "image": self.held_out.photos}
        return {
            name: {
                "vae": measure(reconstruct, videos).to_json(),
                "pca": measure(pca, videos).to_json(),
            }
            for name, videos in sets.items()
        }

    @torch.no_grad()
    def latent_scale(self) -> float:
        """One over the standard deviation of latents of training clips: the scaling factor."""
        stage = self._curriculum[-1]
        latents = [
            self.ema.encode(self.media.batch(stage.batch_size, n, stage.side)[0]).mode()
            for n in (stage.num_frames, 1) * 8
        ]
        return 1 / float(torch.cat([z.float().flatten() for z in latents]).std())

    def save(self, report: dict[str, Any] | None = None) -> None:
        """Write weights (float16), config, loss curve and, at the end, the report."""
        folder = self._out / "vae"
        folder.mkdir(parents=True, exist_ok=True)
        config = self.vae.config.model_copy(
            update={"scaling_factor": round(self.latent_scale(), 6)}
        )
        weights = {k: v.half().contiguous().cpu() for k, v in self.ema.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        (folder / "config.json").write_text(config.model_dump_json(indent=2) + "\n")
        curve = "".join(json.dumps(row) + "\n" for row in self.curve)
        (self._out / "vae_curve.jsonl").write_text(curve)
        if report is not None:
            (self._out / "vae_report.json").write_text(json.dumps(report, indent=2) + "\n")
            plot_curve(self.curve, self._out / "vae_curve.png")
            self._save_pictures()

    @torch.no_grad()
    def _save_pictures(self) -> None:
        """Held-out photos and middle frames above their reconstructions, as one picture."""
        from PIL import Image

        from benchmarks.reconstruction import to_levels

        columns = []
        for video in [*self.held_out.photos[:4], *self.held_out.clips[::4]]:
            decoded = self.ema.decode(self.ema.encode(video).mode())
            middle = video.shape[2] // 2
            pair = [to_levels(v[0, :, middle]).byte().cpu() for v in (video, decoded)]
            columns.append(torch.cat(pair, dim=1))
        sheet_HWC = torch.cat(columns, dim=2).permute(1, 2, 0).numpy()
        Image.fromarray(sheet_HWC).save(self._out / "vae_pictures.jpg", quality=92)


def plot_curve(curve: list[dict[str, float]], path: Path) -> None:
    """L1 and perceptual terms over time, one colour a stage."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    for axis, term in zip(axes, ("l1", "perceptual"), strict=True):
        for stage in sorted({row["stage"] for row in curve}):
            rows = [r for r in curve if r["stage"] == stage and not r["is_image"]]
            seconds, values = [r["seconds"] for r in rows], [r[term] for r in rows]
            axis.plot(seconds, values, label=f"stage {stage:.0f}")
        axis.set(xlabel="seconds", ylabel=term, yscale="log")
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def run_vae(
    bundle: Path,
    out: Path,
    *,
    minutes: float,
    device: torch.device,
    tiny: bool,
    start_from: Path | None,
) -> dict[str, Any]:
    """Train, report and save; returns the report."""
    run_start = time.perf_counter()
    training = VaeTraining(bundle, out, device, tiny=tiny, start_from=start_from)
    training.train(minutes * 60)
    start = time.perf_counter()
    fidelity = training.report()
    report = {
        "command_minutes": minutes,
        "started_from": None if start_from is None else str(start_from),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "num_parameters": sum(p.numel() for p in training.vae.parameters()),
        "training_frames": training.media.num_frames,
        "steps": int(training.curve[-1]["step"]),
        "skipped_steps": training._guard.num_skipped,
        "seconds_setup_and_training": start - run_start,
        "rate": training._peak_rate,
        "mean_loss_by_tried_rate": training.rate_trials,
        "seconds_a_step_by_layout": training.layout_seconds,
        "fidelity": fidelity,
    }
    training.save(report)
    logger.info("report: %s", json.dumps(report["fidelity"], indent=1))
    return report
