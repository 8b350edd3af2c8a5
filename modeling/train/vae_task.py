"""Trains the causal VAE in stages: reconstruction, then perceptual, then adversarial.

Shape suffixes: B batch, C channels, T frames, H height, W width.
"""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from modeling.data.draw import generator, normal_like, seed_of, share
from modeling.discriminator import PatchDiscriminator3d
from modeling.gaussian import DiagonalGaussian
from modeling.interop import to_diffusers, to_original
from modeling.kernels.vae_check import apply_vae_operations
from modeling.perceptual import make_perceptual
from modeling.train import compute, cost
from modeling.train.config import TrainConfig
from modeling.train.dit_task import start_from
from modeling.train.ema import Ema
from modeling.train.optim import Schedule, make_adamw, make_optimizers
from modeling.train.parallel import Parallel
from modeling.train.parts import Part, to_video
from modeling.train.previews import reconstruct
from modeling.train.stream import stage_at, stream_stages
from modeling.train.task import Values
from modeling.vae import CausalVAE, VAEConfig
from modeling.vae_loss import VaeLoss
from schemas.base import StrictModel
from schemas.tier import Bucket

_FINAL_DIGITS = 6
_MIN_VARIANCE = 1e-12


class VaeFinalConfig(StrictModel):
    """config.json of a VAE's final folder. Its diffusers folder is what `--vae` takes."""

    kind: Literal["vae"] = "vae"
    model: VAEConfig
    data_manifests: tuple[str, ...] = ()
    step: int = 0


class VaePass(nn.Module):
    """Video to its reconstruction through a drawn latent; one forward, as DDP needs it."""

    def __init__(self, vae: CausalVAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, video_BCTHW: Tensor, noise_BCTHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction, and mean and log-variance of the posterior."""
        posterior = self.vae.encode(video_BCTHW)
        latent_BCTHW = posterior.mean + torch.exp(0.5 * posterior.logvar) * noise_BCTHW
        return self.vae.decode(latent_BCTHW), posterior.mean, posterior.logvar


class VaeTask:
    """See modeling/train/task.py."""

    def __init__(
        self,
        config: TrainConfig,
        parallel: Parallel,
        *,
        checkpointing: compute.Checkpointing,
        init: Mapping[str, Tensor] | None = None,
    ) -> None:
        self._config, self._parallel = config, parallel
        self._device = parallel.device
        self._dtype = compute.precision(config.compute, self._device)
        self._stages = stream_stages(config)
        torch.manual_seed(config.seed)
        self.model = CausalVAE(config.vae.network_config).to(parallel.build_device)
        kernels = compute.vae_kernel_choice(config.compute, self._device)
        apply_vae_operations(self.model, kernels.operations)
        if init is not None:
            start_from(self.model, init)
        self.model.set_gradient_checkpointing(checkpointing != "off")
        self.num_parameters = sum(p.numel() for p in self.model.parameters())
        self.ema = None if config.ema is None else Ema(self.model, config.ema)
        self._network = parallel.wrap(VaePass(self.model))
        if self.ema is not None:
            parallel.place(self.ema.network)
        self.networks: dict[str, nn.Module] = {"model": self.model}
        self.optimizers: list[Optimizer] = make_optimizers(self.model, config.optim)
        self._judge: nn.Module | None = None
        if any(stage.adversarial for stage in config.vae.stages):
            judge = PatchDiscriminator3d(config.vae.discriminator).to(self._device)
            # Not wrapped: it runs in two passes of a step, and learns in one of them.
            self._judge = judge
            self.networks["discriminator"] = judge
            rate = config.vae.discriminator_learning_rate
            self.optimizers.append(make_adamw(judge.parameters(), config.optim, rate))
        self._schedule = Schedule(config.optim, self.optimizers)
        perceptual = None
        if any(stage.perceptual for stage in config.vae.stages):
            perceptual = make_perceptual(config.vae.perceptual)
        self._perceptual = None if perceptual is None else perceptual.to(self._device)

    def gradients(self, part: Part, *, step: int, last: bool) -> Values:
        config = self._config
        number = stage_at(self._stages, step)
        loss = self._loss_of(number)
        video = self._video(part, step)
        # Whatever draws without a generator of its own draws the same at this step of any run.
        torch.manual_seed(seed_of(config.seed, key=part.draw_keys[0], step=step, stream="loss"))
        noise = normal_like(
            self.model.config.latent_shape(*video.shape[2:]),
            seed=config.seed,
            keys=part.draw_keys,
            step=step,
            stream="posterior",
            device=self._device,
        )
        stage = config.vae.stages[number]
        chance = generator(config.seed, key="", step=step, stream="tiling")
        tiling = (
            self.model.tiling_dropout(config.vae.tiling, stage.tiling_probability, chance)
            if stage.tiling_probability
            else nullcontext(enter_result=False)
        )
        self._set_judge_trains(False)
        with tiling as is_tiled, self._parallel.accumulate(self._network, last=last):
            with compute.autocast(self._device, self._dtype):
                decoded, mean, logvar = self._network(video, noise)
                terms = loss.generator(
                    video,
                    decoded,
                    DiagonalGaussian(mean, logvar),
                    step=step,
                    last_layer=self.model.decoder.conv_out.conv.weight,
                )
            weight = part.share * self._parallel.grad_scale()
            torch.autograd.backward(terms.total * weight)
        values = {
            "loss": terms.total,
            "l1": terms.l1,
            "kl": terms.kl,
            **({"perceptual": terms.perceptual} if stage.perceptual else {}),
            **({"adversarial": terms.adversarial} if stage.adversarial else {}),
        }
        if self._judge is not None and stage.adversarial:
            values["discriminator"] = self._judge_gradients(
                loss, video, decoded, step, weight, last
            )
        weighted = {name: value.detach() * part.share for name, value in values.items()}
        if stage.tiling_probability:
            weighted["tiled"] = torch.tensor(float(is_tiled) * part.share, device=self._device)
        return weighted

    def clip(self, max_norm: float) -> Values:
        norms = {"grad_norm": self._clip(self.model.parameters(), max_norm)}
        if (judge := self.networks.get("discriminator")) is not None:
            norms["discriminator_grad_norm"] = self._clip(judge.parameters(), max_norm)
        return norms

    def apply(self, *, step: int) -> float:
        rate_share = self._schedule.set(step)
        for optimizer in self.optimizers:
            optimizer.step()
        if self.ema is not None:
            self.ema.follow(self.model, step)
        return rate_share

    def shape(self, bucket: Bucket, step: int) -> Bucket:
        if self._is_image_step(step):
            return bucket.model_copy(update={"num_frames": 1})
        return bucket

    def flops(self, bucket: Bucket, *, num_samples: int, step: int) -> float:
        config = self._config
        flops = cost.vae_step_flops(self.model.config.model_dump_json(), bucket.name)
        if config.vae.stages[stage_at(self._stages, step)].adversarial:
            # Judged for the VAE (forward, gradient of the input), then real and fake to learn.
            judged = cost.discriminator_flops(
                config.vae.discriminator.model_dump_json(), bucket.name
            )
            flops += judged * (2 + 2 * cost.TRAINING_FACTOR)
        return num_samples * flops

    def averages(self) -> Mapping[str, nn.Module]:
        return {} if self.ema is None else {"ema": self.ema.network}

    def identity(self) -> dict[str, Any]:
        return {}

    def write_final(
        self,
        folder: Path,
        part: Part,
        networks: Mapping[str, nn.Module],
        *,
        step: int,
        data_manifests: tuple[str, ...],
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        model = cast(CausalVAE, networks["model"])
        averaged = cast("CausalVAE | None", networks.get("ema"))
        best = model if averaged is None else averaged
        scaling_factor = self._scaling_factor(best, part)
        config = self.model.config.model_copy(update={"scaling_factor": scaling_factor})
        to_original(model, folder / "model.safetensors")
        if averaged is not None:
            to_original(averaged, folder / "ema.safetensors")
        before, best.config = best.config, config
        to_diffusers(best, folder / "diffusers")
        best.config = before
        final = VaeFinalConfig(model=config, data_manifests=data_manifests, step=step)
        (folder / "config.json").write_text(final.model_dump_json(indent=2) + "\n")

    def preview(self, folder: Path, part: Part, network: nn.Module, *, step: int) -> list[Path]:
        video = to_video(part.tensors["pixels"], self._device)
        return reconstruct(cast(CausalVAE, network), video, folder, step=step)

    def _judge_gradients(
        self,
        loss: VaeLoss,
        video: Tensor,
        decoded: Tensor,
        step: int,
        weight: float,
        last: bool,
    ) -> Tensor:
        assert self._judge is not None
        self._set_judge_trains(True)
        with self._parallel.accumulate(self._judge, last=last):
            with compute.autocast(self._device, self._dtype):
                judged = loss.discriminator(video, decoded, step=step)
            assert judged is not None
            torch.autograd.backward(judged * weight)
        return judged

    def _set_judge_trains(self, trains: bool) -> None:
        if self._judge is not None:
            self._judge.requires_grad_(trains)

    def _loss_of(self, number: int) -> VaeLoss:
        stage, first = self._config.vae.stages[number], self._stages[number].start
        config = self._config.vae.loss.model_copy(
            update={
                "discriminator_start": first,
                "adversarial_start": first + stage.discriminator_alone,
            }
        )
        return VaeLoss(
            config,
            perceptual=self._perceptual if stage.perceptual else None,
            discriminator=self._judge if stage.adversarial else None,
        )

    def _video(self, part: Part, step: int) -> Tensor:
        video = to_video(part.tensors["pixels"], self._device)
        return video[:, :, :1].contiguous() if self._is_image_step(step) else video

    def _is_image_step(self, step: int) -> bool:
        config = self._config
        if config.vae.images_from == "shards":
            return False
        drawn = share(seed=config.seed, key="", step=step, stream="image step")
        return drawn < config.vae.image_share

    @torch.no_grad()
    def _scaling_factor(self, vae: CausalVAE, part: Part) -> float:
        """One over the standard deviation of drawn latents: it brings them to unit variance."""
        posterior = vae.encode(to_video(part.tensors["pixels"], self._device))
        variance = posterior.mean.float().var() + posterior.logvar.float().exp().mean()
        return round(float(variance.clamp(min=_MIN_VARIANCE).rsqrt()), _FINAL_DIGITS)

    def _clip(self, parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
        return self._parallel.clip_grad_norm(parameters, max_norm)
