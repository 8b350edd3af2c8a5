"""Trains the diffusion transformer by flow matching, behind a frozen VAE and text encoder.

Shape suffixes: B batch, C channels, T frames, H height, W width, L text tokens, D width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from modeling.data.batch_size import tokens
from modeling.data.draw import generator, normal_like, share
from modeling.data.latent_format import POOLED, STATES, TEXT_ENCODER, VAE
from modeling.dit import DiTConfig, VideoDiT
from modeling.final_folder import ADAPTER, FinalConfig, freeze, read_final, write_final
from modeling.fingerprint import model_fingerprint
from modeling.flow_matching import interpolate, sample_sigma, velocity_loss
from modeling.kernels.select import apply_kernels
from modeling.kernels.vae_check import apply_vae_operations
from modeling.text_encoder import Medium, TextEncoder, TextEncoding
from modeling.train import compute, cost
from modeling.train.config import DistillConfig, TrainConfig
from modeling.train.ema import Ema
from modeling.train.encoders import VaeSource, find_vae, keep_untrained, load_vae
from modeling.train.errors import ConfigError
from modeling.train.lora import LoraDit
from modeling.train.optim import Schedule, make_optimizers
from modeling.train.parallel import Parallel
from modeling.train.parts import Part, to_video
from modeling.train.previews import sample_clips
from modeling.train.task import Values
from schemas.tier import Bucket


def fitted_config(config: DiTConfig, vae: VaeSource, *, text: int, pooled: int) -> DiTConfig:
    """The network's config with the channels of the VAE and the widths of the text encoder."""
    changes = {
        "in_channels": vae.config.latent_channels,
        "out_channels": vae.config.latent_channels,
        "text_embed_dim": text,
        "pooled_projection_dim": pooled,
    }
    return config.model_copy(update=changes)


@dataclass(frozen=True)
class Conditions:
    """What a sample is noised to and told, besides its latent."""

    sigma_B: Tensor
    text: TextEncoding
    guidance_B: Tensor | None


class DitTask:
    """See modeling/train/task.py."""

    def __init__(
        self,
        config: TrainConfig,
        parallel: Parallel,
        *,
        out: Path,
        checkpointing: compute.Checkpointing,
        init: Mapping[str, Tensor] | None = None,
        init_file: Path | None = None,
    ) -> None:
        self._config, self._parallel, self._out = config, parallel, out
        device = parallel.device
        self._device = device
        self.dtype = compute.precision(config.compute, device)
        self._vae_source = find_vae(config.dit.vae)
        self.vae, self._vae_fingerprint = load_vae(self._vae_source, device)
        around = compute.vae_kernel_choice(config.compute, device)
        apply_vae_operations(self.vae, around.operations)
        self.text_encoder = TextEncoder(config.dit.text_encoder, device)
        self.network_config = fitted_config(
            config.dit.network_config,
            self._vae_source,
            text=self.text_encoder.states_width,
            pooled=self.text_encoder.pooled_width,
        )
        torch.manual_seed(config.seed)
        self.model = VideoDiT(self.network_config).to(parallel.build_device)
        self._guided = None
        if config.dit.distill is not None:
            self._guided = _Teacher(config.dit.distill, self, device)
            self._guided.start_student(self.model)
        if init is not None:
            start_from(self.model, init)
        self.num_parameters = sum(p.numel() for p in self.model.parameters())
        self._lora = None
        if config.lora is not None:
            if init is None:
                raise ConfigError("lora adapts a trained network: give --init-from RUN")
            self._lora = LoraDit(self.model, config.lora, base=init_file, seed=config.seed)
        if checkpointing == "selective":
            self.model.set_gradient_checkpointing(True, compute.selective_contexts())
        else:
            self.model.set_gradient_checkpointing(checkpointing == "full")
        apply_kernels(self.model, compute.kernel_choice(config.compute, device).operations)
        attention = compute.attention_choice(config.compute, self.network_config, device)
        if attention is not None:
            self.model.set_attention(attention.attention)
        if config.compute.compile:
            for block in [*self.model.double_blocks, *self.model.single_blocks]:
                block.compile()
        self.model.train()
        trained = self.model if self._lora is None else self._lora.adapter
        self.ema = None if config.ema is None else Ema(trained, config.ema)
        self._network = parallel.wrap(self.model)
        if self.ema is not None:
            parallel.place(self.ema.network)
        self.networks: Mapping[str, nn.Module] = {"model": trained}
        self.optimizers: list[Optimizer] = make_optimizers(trained, config.optim)
        self._schedule = Schedule(config.optim, self.optimizers)
        self._empty_texts: dict[Medium, TextEncoding] = {}  # what "" becomes, for latent shards
        self._text_lengths: list[int] = []  # of the samples of one step, for its FLOPs
        self._text_lengths_step = -1

    def gradients(self, part: Part, *, step: int, last: bool) -> Values:
        latent, conditions = self._prepare(part, step)
        self._note_lengths(conditions.text, step)
        noise = self._normal(part, step, "noise", tuple(latent.shape[1:]))
        x = interpolate(latent, noise, conditions.sigma_B)
        if self._lora is not None:
            self._lora.draw_for(seed=self._config.seed, keys=part.draw_keys, step=step)
        with self._parallel.accumulate(self._network, last=last):
            with compute.autocast(self._device, self.dtype):
                predicted = self.predict(self._network, x, conditions)
            if self._guided is None:
                loss_B = velocity_loss(predicted, latent, noise)
            else:
                wanted = self._guided.velocity(x, conditions, part.bucket)
                loss_B = (predicted.float() - wanted).square().flatten(1).mean(1)
            loss = loss_B.sum() / part.global_batch
            torch.autograd.backward(loss * self._parallel.grad_scale())
        return {"loss": loss.detach()}

    def _note_lengths(self, text: TextEncoding, step: int) -> None:
        if step != self._text_lengths_step:
            self._text_lengths, self._text_lengths_step = [], step
        self._text_lengths += text.lengths_B.tolist()

    def clip(self, max_norm: float) -> Values:
        return {"grad_norm": self._parallel.clip_grad_norm(self._trained.parameters(), max_norm)}

    def apply(self, *, step: int) -> float:
        rate_share = self._schedule.set(step)
        for optimizer in self.optimizers:
            optimizer.step()
        if self.ema is not None:
            self.ema.follow(self._trained, step)
        return rate_share

    def shape(self, bucket: Bucket, step: int) -> Bucket:
        del step
        return bucket

    def flops(self, bucket: Bucket, *, num_samples: int, step: int) -> float:
        num_text = self._config.dit.text_encoder.max_tokens
        if self._text_lengths and self._text_lengths_step == step:
            num_text = round(sum(self._text_lengths) / len(self._text_lengths))
        return num_samples * cost.dit_step_flops(
            self.network_config, bucket, num_text, self._config.lora
        )

    @property
    def _trained(self) -> nn.Module:
        return self.networks["model"]

    def averages(self) -> Mapping[str, nn.Module]:
        return {} if self.ema is None else {"ema": self.ema.network}

    def encoders(self) -> dict[str, str]:
        """Fingerprints of the frozen networks that make latents and text states."""
        return {
            "vae_fingerprint": self._vae_fingerprint,
            "text_encoder_fingerprint": self.text_encoder.fingerprint,
        }

    def latent_encoders(self) -> dict[str, str]:
        """The same by the names that manifests of latent shards use."""
        return {VAE: self._vae_fingerprint, TEXT_ENCODER: self.text_encoder.fingerprint}

    def identity(self) -> dict[str, Any]:
        found = self.encoders()
        if self._guided is not None:
            found["teacher_fingerprint"] = self._guided.fingerprint
        if self._lora is not None:
            found["lora_base_fingerprint"] = self._lora.base_fingerprint
            found["lora_base_place"] = self._lora.base_place
        return found

    def write_final(
        self,
        folder: Path,
        part: Part,
        networks: Mapping[str, nn.Module],
        *,
        step: int,
        data_manifests: tuple[str, ...],
    ) -> None:
        del part
        config = FinalConfig(
            model=self.network_config,
            flow=self._config.dit.flow,
            vae_folder=self._vae_folder,
            vae_origin=self._vae_source.origin,
            vae_fingerprint=self._vae_fingerprint,
            text_encoder=self._config.dit.text_encoder,
            text_encoder_fingerprint=self.text_encoder.fingerprint,
            data_manifests=data_manifests,
            step=step,
        )
        if self._lora is not None:
            self._lora.write(folder / ADAPTER, networks.get("ema", networks["model"]), step=step)
            networks = {name: self._lora.merged(each) for name, each in networks.items()}
        ema = cast("VideoDiT | None", networks.get("ema"))
        write_final(folder, config, cast(VideoDiT, networks["model"]), ema)

    def preview(self, folder: Path, part: Part, network: nn.Module, *, step: int) -> list[Path]:
        del part
        if self._config.preview is None:
            return []
        if self._lora is not None:
            network = self._lora.merged(network)
        was_training = network.training
        try:
            return sample_clips(
                cast(VideoDiT, network.to(self._device).eval()),
                self.vae,
                self.text_encoder,
                self._config.preview,
                folder,
                step=step,
                seed=self._config.seed,
            )
        finally:
            network.train(was_training)

    @cached_property
    def _vae_folder(self) -> Path:
        if self._vae_source.folder is not None:
            return self._vae_source.folder
        return keep_untrained(self.vae, (self._out / "untrained_vae").resolve())

    @torch.no_grad()
    def _prepare(self, part: Part, step: int) -> tuple[Tensor, Conditions]:
        """The scaled latent, float32, and all that the network is told besides."""
        config = self._config
        latent, text = self._latent(part, step), self._text(part)
        # Drawn for the whole step, so that neither ranks nor parts change a sample's sigma.
        sigma_B = sample_sigma(
            part.global_batch,
            config=config.dit.flow,
            generator=generator(config.seed, key="", step=step, stream="sigma"),
            num_tokens=tokens(part.bucket),
        )[part.first : part.first + len(part)]
        guidance_B = None
        if config.dit.distill is not None:
            guidance_B = self._guidance(part, step, config.dit.distill)
        conditions = Conditions(sigma_B.to(self._device), text, guidance_B)
        return latent * self.vae.config.scaling_factor, conditions

    def _latent(self, part: Part, step: int) -> Tensor:
        """Of pixels or of stored moments, not scaled."""
        if "mean" in part.tensors:
            mean, logvar = (part.tensors[name].to(self._device) for name in ("mean", "logvar"))
        else:
            with compute.autocast(self._device, self.dtype):
                posterior = self.vae.encode(to_video(part.tensors["pixels"], self._device))
            mean, logvar = posterior.mean, posterior.logvar
        latent = mean.float()
        if self._config.dit.sample_posterior:
            noise = self._normal(part, step, "posterior", tuple(latent.shape[1:]))
            latent = latent + torch.exp(0.5 * logvar.float()) * noise
        return latent

    def _text(self, part: Part) -> TextEncoding:
        medium: Medium = "image" if part.bucket.num_frames == 1 else "video"
        if not part.ragged:
            return self.text_encoder(part.captions, medium=medium, allow_empty=True, cut_long=True)
        if "" in part.captions and medium not in self._empty_texts:
            self._empty_texts[medium] = self.text_encoder([""], medium=medium, allow_empty=True)
        return stored_texts(part, self._empty_texts.get(medium), self._device)

    def _guidance(self, part: Part, step: int, distill: DistillConfig) -> Tensor:
        width = distill.max_guidance - distill.min_guidance
        drawn = [
            distill.min_guidance
            + width * share(seed=self._config.seed, key=key, step=step, stream="guidance")
            for key in part.draw_keys
        ]
        return torch.tensor(drawn, device=self._device)

    def predict(self, network: nn.Module, x: Tensor, conditions: Conditions) -> Tensor:
        text = conditions.text
        predicted: Tensor = network(
            x,
            conditions.sigma_B,
            text.states_BLD,
            text.lengths_B.cpu(),
            text.pooled_BD,
            conditions.guidance_B,
        )
        return predicted

    def _normal(self, part: Part, step: int, stream: str, shape: tuple[int, ...]) -> Tensor:
        return normal_like(
            shape,
            seed=self._config.seed,
            keys=part.draw_keys,
            step=step,
            stream=stream,
            device=self._device,
        )


class _Teacher:
    """An undistilled network, asked with and without the prompt."""

    def __init__(self, config: DistillConfig, task: DitTask, device: torch.device) -> None:
        try:
            final, network = read_final(config.teacher, device=device, dtype=torch.float32)
        except (FileNotFoundError, ValueError) as error:
            raise ConfigError(f"dit.distill.teacher: {error}") from error
        if final.model.guidance_embeds:
            raise ConfigError(f"dit.distill.teacher: {config.teacher} is distilled already")
        expected = task.network_config.model_copy(update={"guidance_embeds": False})
        if final.model != expected:
            raise ConfigError(
                f"dit.distill.teacher: {config.teacher} is another network than the student"
            )
        identity = task.encoders()
        for name, found in (
            ("vae_fingerprint", final.vae_fingerprint),
            ("text_encoder_fingerprint", final.text_encoder_fingerprint),
        ):
            if found != identity[name]:
                raise ConfigError(
                    f"dit.distill.teacher was trained with {name} {found}, this run has "
                    f"{identity[name]}"
                )
        self._task, self._network = task, freeze(network)

    @cached_property
    def fingerprint(self) -> str:
        return model_fingerprint(self._network)

    def start_student(self, student: VideoDiT) -> None:
        """The teacher's weights, and an embedding of guidance that begins without effect."""
        student.load_state_dict(self._network.state_dict(), strict=False)
        assert student.guidance_in is not None
        for parameter in student.guidance_in.mlp[2].parameters():
            nn.init.zeros_(parameter)

    @torch.no_grad()
    def velocity(self, x: Tensor, conditions: Conditions, bucket: Bucket) -> Tensor:
        """What classifier-free guidance of the teacher predicts, float32."""
        task = self._task
        empty = task.text_encoder(
            [""] * len(x),
            medium="image" if bucket.num_frames == 1 else "video",
            allow_empty=True,
        )
        sigma_B = conditions.sigma_B
        with compute.autocast(x.device, task.dtype):
            told = task.predict(self._network, x, Conditions(sigma_B, conditions.text, None))
            untold = task.predict(self._network, x, Conditions(sigma_B, empty, None))
        assert conditions.guidance_B is not None
        scale = conditions.guidance_B.view(-1, *[1] * (x.ndim - 1))
        return untold.float() + scale * (told.float() - untold.float())


def stored_texts(part: Part, empty: TextEncoding | None, device: torch.device) -> TextEncoding:
    """Text states of latent shards, padded; those of `empty` where the text is dropped."""
    states, pooled = [], []
    for number, caption in enumerate(part.captions):
        if caption == "" and empty is not None:
            states.append(empty.states_BLD[0, : int(empty.lengths_B[0])])
            pooled.append(empty.pooled_BD[0])
        else:
            states.append(part.ragged[STATES][number].to(device).float())
            pooled.append(part.ragged[POOLED][number].to(device).float())
    lengths_B = torch.tensor([len(each) for each in states], device=device)
    return TextEncoding(
        nn.utils.rnn.pad_sequence(states, batch_first=True), lengths_B, torch.stack(pooled)
    )


def start_from(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load weights of an earlier stage. Raises ConfigError with the first that does not fit."""
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(own.keys() | found.keys()):
        if own.get(name) != found.get(name):
            raise ConfigError(
                f"--init-from: {name} is {found.get(name, 'missing')} there, "
                f"{own.get(name, 'missing')} in this network"
            )
    network.load_state_dict(dict(weights))
