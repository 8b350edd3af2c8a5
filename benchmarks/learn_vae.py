"""Train a small causal VAE against the clock and say what it gives back of media it never saw."""

import copy
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.learn_data import HeldOut, TrainingMedia
from benchmarks.learn_optimizer import Graphed, MuonAdam
from benchmarks.learn_start import start_linear
from benchmarks.reconstruction import PcaAutoencoder
from modeling.evaluate.fidelity import measure, psnr_db, to_levels
from modeling.gaussian import DiagonalGaussian
from modeling.kernels.select import choose_vae_kernels
from modeling.kernels.vae_check import apply_vae_operations
from modeling.vae import VAE_CONFIGS, CausalVAE
from modeling.vae_loss import kl_per_value

logger = logging.getLogger(__name__)

SMALL_VAE = VAE_CONFIGS["small"]
TINY_VAE = SMALL_VAE.model_copy(update={"block_out_channels": (8, 16, 40, 40)})
_IMAGE_EVERY = 5  # one step in five is images: image : video = 1 : 4, the paper's ratio


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum. `until` is the share of the time budget at which it ends."""

    until: float
    num_frames: int
    side: int
    num_videos: int
    num_images: int
    max_interval: int


# About a million pixels a batch throughout. Fidelity is wanted at native rates: small intervals.
CURRICULUM = (
    Stage(0.78, 9, 64, 32, 192, 4),
    Stage(1.0, 17, 128, 4, 48, 2),
)
TINY_CURRICULUM = (Stage(0.5, 5, 32, 2, 4, 4), Stage(1.0, 5, 64, 1, 2, 2))

_TRIED_RATES = (5e-4, 1e-3, 2e-3)
_TRIAL_SECONDS = 9.0
_WARM_STEPS = 200
_FLAT_SHARE = 0.3  # of the time at the full rate; from there it falls to nothing
_KL_WEIGHT = 1e-6
_LEAST_ERROR = 1e-4  # a mean square error that needs no further work: 46 dB
_EMA_DECAY = 0.998
_LOG_EVERY = 25


@torch.no_grad()
def _follow(ema: nn.Module, weights: Sequence[Tensor], step: int) -> None:
    """Exponential moving average, shorter at the start."""
    decay = min(_EMA_DECAY, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(ema.parameters()), list(weights), 1 - decay)


def _rate(peak: float, progress: float, step: int) -> float:
    falling = min(1.0, (1 - progress) / (1 - _FLAT_SHARE))
    return peak * min(1.0, (step + 1) / _WARM_STEPS) * falling


class ReconstructionLoss:
    """L1 plus the root of each clip's mean square error, plus 1e-6 KL.

    The root weighs clips as PSNR does, between their errors and the logarithms of them. Neither a
    perceptual nor an adversarial term: both trade fidelity for sharpness.
    """

    def __init__(self, vae: CausalVAE) -> None:
        self._vae = vae

    def __call__(self, video: Tensor) -> dict[str, Tensor]:
        # Without the checks of `encode` and `decode`, which a CUDA graph cannot hold.
        vae = self._vae
        posterior = DiagonalGaussian.from_moments(vae.quant_conv(vae.encoder(video)))
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        latent = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
        decoded = vae.decoder(vae.post_quant_conv(latent.to(video.dtype))).float()
        difference = decoded - video.float()
        square_B = difference.square().flatten(1).mean(1)
        l1, root = difference.abs().mean(), (square_B + _LEAST_ERROR).sqrt().mean()
        kl = kl_per_value(posterior, video.numel())
        psnr = -10 * torch.log10(square_B.detach() / 4 + 1e-6).mean()
        return {"total": l1 + root + _KL_WEIGHT * kl, "l1": l1, "kl": kl, "psnr_db": psnr}


class VaeTraining:
    """One run: `train` until the time is up, `report` what was learned, `save` it."""

    def __init__(
        self, bundle: Path, out: Path, device: torch.device, *, tiny: bool, rate: float | None
    ) -> None:
        torch.manual_seed(0)
        self._out, self._device = out, device
        self._curriculum = TINY_CURRICULUM if tiny else CURRICULUM
        self._trial_seconds = 1.0 if tiny else _TRIAL_SECONDS
        self.media = TrainingMedia(bundle, device)
        self.held_out = HeldOut.read(bundle, device)
        if tiny:
            self.held_out = HeldOut(self.held_out.clips[:1], self.held_out.photos[:2])
        logger.info("%d training frames read", self.media.num_frames)
        self.vae = CausalVAE(TINY_VAE if tiny else SMALL_VAE)
        few = 4 if tiny else 48
        start = [self.media.batch(few, t, 64, max_interval=2)[0].cpu() for t in (1, 9)]
        start_linear(self.vae, start)
        logger.info("linear start done")
        self.vae.to(device)
        self.ema = copy.deepcopy(self.vae).eval().requires_grad_(requires_grad=False)
        self.rate = rate
        self.rate_trials: dict[str, float] = {}
        self.curve: list[dict[str, float]] = []
        kernels = choose_vae_kernels("auto", device, torch.bfloat16)
        apply_vae_operations(self.vae, kernels.operations)
        self.kernels = kernels.name
        self._begin()
        logger.info("start: %s", self.quick_psnr())

    def _begin(self) -> None:
        """A fresh working network and optimizer for the weights as they are."""
        self.network = copy.deepcopy(self.vae)
        if self._device.type == "cuda":
            self.network.to(torch.bfloat16)
            self.network.to(memory_format=torch.channels_last_3d)
        self._weights: list[Tensor] = list(self.vae.parameters())
        self._optimizer = MuonAdam(self.vae)
        self._losses = ReconstructionLoss(self.network)
        self._graphs: dict[torch.Size, Graphed | None] = {}

    def _try_rates(self) -> None:
        """Train the first stage with each rate from the same weights; keep the best rate."""
        weights = copy.deepcopy(self.vae.state_dict())
        for rate in _TRIED_RATES:
            self._optimizer = MuonAdam(self.vae)
            psnrs: list[Tensor] = []
            step = 0
            for kind in range(2):  # chooses kernels
                self._step(self._curriculum[0], 0.0, kind)
            start = time.perf_counter()
            while (spent := time.perf_counter() - start) < self._trial_seconds:
                now = _rate(rate, spent / self._trial_seconds, 4 * step)  # the run's, but shorter
                losses = self._step(self._curriculum[0], now, step)
                if step % _IMAGE_EVERY:
                    psnrs.append(losses["psnr_db"])
                step += 1
            tail = psnrs[-max(1, len(psnrs) // 6) :]
            self.rate_trials[f"{rate:g}"] = float(torch.stack(tail).mean())
            self.ema.load_state_dict(self.vae.state_dict())
            logger.info("rate %g: %d steps, last %.2f dB, held out %s", rate, step,
                        self.rate_trials[f"{rate:g}"], self.quick_psnr())  # fmt: skip
            self.vae.load_state_dict(weights)
            self._share()
        self.ema.load_state_dict(weights)
        self._optimizer = MuonAdam(self.vae)
        self.rate = float(max(self.rate_trials, key=self.rate_trials.__getitem__))

    def train(self, seconds: float) -> None:
        """Train for so long, the trials of rates included."""
        start = time.perf_counter()
        if self.rate is None:
            self._try_rates()
        assert self.rate is not None
        seconds = max(seconds - (time.perf_counter() - start), 1.0)
        start = time.perf_counter()
        step, saved_at, stage_number = 0, start, -1
        while (progress := (time.perf_counter() - start) / seconds) < 1:
            number = next(n for n, s in enumerate(self._curriculum) if progress < s.until)
            if number != stage_number:
                stage_number = number
                logger.info("step %d: %s", step, self._curriculum[number])
            losses = self._step(self._curriculum[number], _rate(self.rate, progress, step), step)
            _follow(self.ema, self._weights, step)
            if step % _LOG_EVERY < 2:  # the second one is never images
                self._note(losses, step, number, time.perf_counter() - start)
            if time.perf_counter() - saved_at > 60:
                self.save()
                logger.info("step %d: held out %s", step, self.quick_psnr())
                saved_at = time.perf_counter()
            step += 1
        logger.info("%d steps in %.0f s", step, time.perf_counter() - start)
        self.num_steps = step

    def _note(self, losses: dict[str, Tensor], step: int, stage: int, seconds: float) -> None:
        values = {name: float(value.detach()) for name, value in losses.items()}
        is_image = float(step % _IMAGE_EVERY == 0)
        row = {"step": float(step), "seconds": seconds, **values, "is_image": is_image}
        self.curve.append(row | {"stage": float(stage)})
        if step % 500 < 2:
            logger.info("step %d %s", step, {k: round(v, 4) for k, v in values.items()})
        if not math.isfinite(values["total"]):
            logger.warning("step %d: loss %s, back to the average", step, values["total"])
            self.vae.load_state_dict(self.ema.state_dict())
            self._optimizer = MuonAdam(self.vae)
            self._share()

    def _step(self, stage: Stage, rate: float, step: int) -> dict[str, Tensor]:
        is_image = step % _IMAGE_EVERY == 0
        video = self.media.batch(
            stage.num_images if is_image else stage.num_videos,
            1 if is_image else stage.num_frames,
            stage.side,
            max_interval=stage.max_interval,
        )[0]
        if self._device.type == "cuda":
            video = video.to(torch.bfloat16, memory_format=torch.channels_last_3d)
        losses, gradients = self._gradients(video)
        self._optimizer.step(gradients, rate)
        self._share()
        return losses

    def _gradients(self, video: Tensor) -> tuple[dict[str, Tensor], list[Tensor]]:
        if self._device.type == "cuda" and video.shape not in self._graphs:
            try:
                self._graphs[video.shape] = Graphed(self.network, self._losses, video)
            except RuntimeError as error:
                logger.warning("no CUDA graph for %s: %s", tuple(video.shape), error)
                self._graphs[video.shape] = None
        graph = self._graphs.get(video.shape)
        if graph is not None:
            losses, gradients = graph(video)
            return {name: value.clone() for name, value in losses.items()}, gradients
        self.network.zero_grad()
        losses = self._losses(video)
        torch.autograd.backward(losses["total"])
        gradients = [p.grad if p.grad is not None else p for p in self.network.parameters()]
        return {name: value.detach() for name, value in losses.items()}, gradients

    @torch.no_grad()
    def _share(self) -> None:
        """Copy the float32 weights into the working network."""
        working: list[Tensor] = list(self.network.parameters())
        torch._foreach_copy_(working, self._weights)

    @torch.no_grad()
    def quick_psnr(self) -> dict[str, float]:
        """Mean PSNR of the averaged weights on some held-out clips and photos."""
        sets = {"video": self.held_out.clips[::3], "image": self.held_out.photos}
        means = {}
        for name, videos in sets.items():
            decoded = [self.ema.decode(self.ema.encode(video).mode()) for video in videos]
            pairs = zip(videos, decoded, strict=True)
            values = [psnr_db(to_levels(a), to_levels(b)) for a, b in pairs]
            means[name] = round(sum(values) / len(values), 2)
        return means

    def report(self) -> dict[str, Any]:
        """Fidelity of the averaged weights (float32) and of the linear autoencoder."""
        clips = self._curriculum[-1]
        fitting = [
            self.media.batch(8, clips.num_frames, clips.side, max_interval=1)[0] for _ in range(48)
        ]
        fitting += [self.media.batch(8, 1, clips.side)[0] for _ in range(48)]
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
            self.ema.encode(self.media.batch(4, n, stage.side)[0]).mode()
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

        columns = []
        for video in [*self.held_out.photos[:4], *self.held_out.clips[::4]]:
            decoded = self.ema.decode(self.ema.encode(video).mode())
            middle = video.shape[2] // 2
            pair = [to_levels(v[0, :, middle]).byte().cpu() for v in (video, decoded)]
            columns.append(torch.cat(pair, dim=1))
        sheet_HWC = torch.cat(columns, dim=2).permute(1, 2, 0).numpy()
        Image.fromarray(sheet_HWC).save(self._out / "vae_pictures.jpg", quality=92)


def plot_curve(curve: list[dict[str, float]], path: Path) -> None:
    """L1 and PSNR of training batches over time, images and clips apart."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    for axis, term in zip(axes, ("l1", "psnr_db"), strict=True):
        for is_image, label in ((0.0, "clips"), (1.0, "images")):
            rows = [r for r in curve if r["is_image"] == is_image]
            seconds, values = [r["seconds"] for r in rows], [r[term] for r in rows]
            axis.plot(seconds, values, label=label, linewidth=0.7)
        axis.set(xlabel="seconds", ylabel=term, yscale="log" if term == "l1" else "linear")
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
    rate: float | None,
) -> dict[str, Any]:
    """Train, report and save; returns the report."""
    run_start = time.perf_counter()
    training = VaeTraining(bundle, out, device, tiny=tiny, rate=rate)
    training.train(minutes * 60)
    start = time.perf_counter()
    training.save()
    report = {
        "command_minutes": minutes,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "num_parameters": sum(p.numel() for p in training.vae.parameters()),
        "training_frames": training.media.num_frames,
        "steps": training.num_steps,
        "seconds_setup_and_training": start - run_start,
        "rate": training.rate,
        "psnr_db_by_tried_rate": training.rate_trials,
        "kernels": training.kernels,
        "fidelity": training.report(),
    }
    training.save(report)
    logger.info("report: %s", json.dumps(report["fidelity"], indent=1))
    return report
