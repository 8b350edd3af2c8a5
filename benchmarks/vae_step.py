"""What the full-size video VAE costs on one GPU, to train and to encode and decode in tiles.

All in one run: diffusers' AutoencoderKLHunyuanVideo with bf16 weights, as it is commonly trained
(batch 1, gradient checkpointing) and compiled at larger batches, against ours with float32 weights
and bf16 products: plain, channels-last, compiled, and with the fused kernels (norm, SiLU and
padding in one pass). Loss: L1 plus a little KL, no perceptual and no adversarial term.

Convention: convolutions and attention, three times the forward pass; MFU of 989.4 TFLOP/s.

Predicted for 17 x 256 x 256 on one H200: 165 TFLOP a clip by the convention; no checkpointing:
three quarters of the arithmetic; convolutions at 450 TFLOP/s channels-last 370 ms; norm, SiLU
and padding fused 60 ms instead of some 200. So 0.43 s a clip or less, against 0.88 s.

Run: python -m benchmarks.vae_step --out OUT.json [--parts steps tiles] [--seconds 560]
"""

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from benchmarks.step_timer import PEAK_TFLOPS, Record, machine, time_calls
from modeling.gaussian import DiagonalGaussian
from modeling.kernels.select import choose_vae_kernels
from modeling.kernels.vae_check import apply_vae_operations
from modeling.train.cost import vae_step_flops
from modeling.vae import VAE_CONFIGS, CausalVAE, VAEConfig
from modeling.vae_tiling import TilingConfig
from schemas.tier import Bucket

PARTS = ("steps", "tiles")
_KL_WEIGHT = 1e-6


@dataclass(frozen=True)
class Variant:
    network: Literal["diffusers", "plain", "fused"]
    batch: int
    checkpointing: bool = False
    channels_last: bool = True
    compiled: bool = False


class Bench:
    def __init__(self, record: Record, device: torch.device, *, tiny: bool, backend: str) -> None:
        self.record, self.device, self.tiny, self.backend = record, device, tiny, backend
        self.config: VAEConfig = VAE_CONFIGS["tiny" if tiny else "hunyuan"]
        self.clip = (5, 32, 32) if tiny else (17, 256, 256)
        self.long = (29, 64, 48) if tiny else (65, 512, 512)
        self.kernels = choose_vae_kernels("auto", device, torch.bfloat16)
        record.about |= machine() | {"kernels": f"{self.kernels.name}, {self.kernels.reason}"}

    def steps(self) -> None:
        rows = [
            ("diffusers, checkpointing", Variant("diffusers", 1, True, False), 25.0),
            ("ours, fused", Variant("fused", 1), 25.0),
            ("ours, fused", Variant("fused", 4), 30.0),
            ("diffusers, compiled", Variant("diffusers", 4, compiled=True), 150.0),
            ("diffusers", Variant("diffusers", 1, channels_last=False), 20.0),
            ("ours, plain, checkpointing", Variant("plain", 1, True, False), 20.0),
            ("ours, plain", Variant("plain", 1), 20.0),
            ("ours, compiled", Variant("plain", 4, compiled=True), 150.0),
            ("diffusers, compiled", Variant("diffusers", 2, compiled=True), 150.0),
            (
                "diffusers, compiled, checkpointing",
                Variant("diffusers", 4, True, True, True),
                150.0,
            ),
            ("ours, fused, checkpointing", Variant("fused", 4, True), 30.0),
        ]
        for name, variant, needs in rows:
            layout = ", channels last" if variant.channels_last else ""
            self.record.attempt(
                f"step, {self.clip} frames x height x width",
                f"{name}{layout}, batch {variant.batch}",
                0 if self.tiny else needs,
                partial(self._timed, variant),
            )

    def _timed(self, variant: Variant) -> dict[str, Any]:
        network, run = self._network(variant)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)
        torch.manual_seed(0)
        video = torch.rand(variant.batch, 3, *self.clip, device=self.device) * 2 - 1
        noise = torch.randn(
            variant.batch, *self.config.latent_shape(*self.clip), device=self.device
        )
        if variant.channels_last:
            video = video.contiguous(memory_format=torch.channels_last_3d)
        last = torch.zeros((), device=self.device)

        def step() -> None:
            decoded, mean, logvar = run(video, noise)
            kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).float().sum() / variant.batch
            loss = (decoded.float() - video).abs().mean() + _KL_WEIGHT * kl / noise[0].numel()
            torch.autograd.backward(loss)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            last.copy_(loss.detach())

        timing = time_calls(step, warm_up=2, seconds=0.1 if self.tiny else 5.0, most=12)
        t, h, w = self.clip
        bucket = Bucket(num_frames=t, height=h, width=w)
        flops = variant.batch * vae_step_flops(self.config.model_dump_json(), bucket.name)
        rate = flops / timing.milliseconds / 1e9
        return {
            "ms": round(timing.milliseconds, 1),
            "ms/clip": round(timing.milliseconds / variant.batch, 1),
            "spread": f"{timing.spread:.1%}",
            "TFLOP/s": round(rate, 1),
            "MFU": f"{rate / PEAK_TFLOPS:.1%}",
            "peak GiB": round(timing.peak_gib, 1),
            "first call s": round(timing.first_s, 1),
            "loss": round(float(last), 5),
        }

    def _network(
        self, variant: Variant
    ) -> tuple[nn.Module, Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]]:
        """A network, and video and noise to reconstruction, mean and log-variance."""
        torch.manual_seed(0)
        network = self._theirs() if variant.network == "diffusers" else self._ours()
        if variant.channels_last:
            _channels_last(network)
        if variant.checkpointing and variant.network == "diffusers":
            cast(Any, network).enable_gradient_checkpointing()
        elif variant.checkpointing:
            cast(CausalVAE, network).set_gradient_checkpointing(True)
        network.train()

        def theirs(video: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            vae = cast(Any, network)
            posterior = vae.encode(video.bfloat16()).latent_dist
            latent = posterior.mean + torch.exp(0.5 * posterior.logvar) * noise.bfloat16()
            return vae.decode(latent).sample, posterior.mean, posterior.logvar

        ours: Any = network
        if variant.network == "fused":
            apply_vae_operations(cast(CausalVAE, network), self.kernels.operations)

        def own(video: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            with torch.autocast(self.device.type, torch.bfloat16):
                moments = ours.quant_conv(ours.encoder(video.bfloat16()))
                posterior = DiagonalGaussian.from_moments(moments)
                latent = posterior.mean + torch.exp(0.5 * posterior.logvar) * noise.bfloat16()
                decoded = ours.decoder(ours.post_quant_conv(latent))
            return decoded, posterior.mean, posterior.logvar

        if variant.compiled:
            parts = cast("list[nn.Module]", [ours.encoder, ours.decoder])
            for part in parts:
                part.compile(backend=self.backend, dynamic=False)
        return network, theirs if variant.network == "diffusers" else own

    def _ours(self) -> CausalVAE:
        with self.device:
            return CausalVAE(self.config)

    def _theirs(self) -> nn.Module:
        import diffusers

        theirs: Any = diffusers.AutoencoderKLHunyuanVideo
        fields = self.config.model_dump(exclude={"per_frame_norm"})
        with self.device:
            made = theirs(**fields)
        model: nn.Module = made.to(self.device, torch.bfloat16)
        return model

    def tiles(self) -> None:
        """Same weights, same tiles: 256 x 256 x 16 frames, strides 192 and 12."""
        theirs: Any = self._theirs().eval()
        ours = self._ours().to(torch.bfloat16).eval()
        ours.load_state_dict(theirs.state_dict())
        _channels_last(ours)
        tiling = TilingConfig(num_frames=16, stride_num_frames=12)
        if self.tiny:
            tiling = TilingConfig(
                height=32, width=32, num_frames=16,
                stride_height=24, stride_width=24, stride_num_frames=12,
            )  # fmt: skip
        theirs.enable_tiling(
            tiling.height, tiling.width, tiling.num_frames,
            tiling.stride_height, tiling.stride_width, tiling.stride_num_frames,
        )  # fmt: skip
        torch.manual_seed(0)
        video = torch.rand(1, 3, *self.long, device=self.device).mul(2).sub(1).bfloat16()
        latent = torch.randn(
            1, *self.config.latent_shape(*self.long), device=self.device
        ).bfloat16()
        fused = copy.deepcopy(ours)
        apply_vae_operations(fused, self.kernels.operations)
        for each in (ours, fused):
            each.enable_tiling(tiling)
        pairs: dict[str, dict[str, Callable[[], Tensor]]] = {
            "encode": {
                "diffusers": lambda: theirs.encode(video).latent_dist.mean,
                "ours": lambda: ours.encode(video).mean,
                "ours, fused": lambda: fused.encode(video).mean,
            },
            "decode": {
                "diffusers": lambda: theirs.decode(latent).sample,
                "ours": lambda: ours.decode(latent),
                "ours, fused": lambda: fused.decode(latent),
            },
        }
        exact = self._ours().eval()
        exact.load_state_dict({k: v.float() for k, v in theirs.state_dict().items()})
        exact.enable_tiling(tiling)
        with torch.no_grad():
            references = {
                "encode": exact.encode(video.float()).mean,
                "decode": exact.decode(latent.float()),
            }
        del exact
        for what, runs in pairs.items():
            outputs = [references[what]]
            for name, run in runs.items():
                self.record.attempt(
                    f"tiles, {self.long} frames x height x width",
                    f"{what}, {name}",
                    0 if self.tiny else 20,
                    partial(self._tiled_row, run, outputs),
                )

    @torch.no_grad()
    def _tiled_row(self, run: Callable[[], Tensor], outputs: list[Tensor]) -> dict[str, Any]:
        """`outputs`: in float32, then that of diffusers, which the first call adds."""
        out = run().float()
        if len(outputs) == 1:
            outputs.append(out)
        exact, theirs = outputs
        timing = time_calls(run, warm_up=1, seconds=0.1 if self.tiny else 6.0, most=5)
        return {
            "s": round(timing.milliseconds / 1e3, 3),
            "mean difference from diffusers": f"{float((out - theirs).abs().mean()):.2e}",
            "error against float32": f"{float((out - exact).norm() / exact.norm()):.2e}",
            "peak GiB": round(timing.peak_gib, 1),
        }


def _channels_last(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("vae_step.json"))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=560, help="bound of the whole run")
    parser.add_argument("--tiny", action="store_true", help="try the program, on a CPU too")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not arguments.tiny:
        raise SystemExit("no CUDA device: only --tiny runs on a CPU")
    torch.backends.cudnn.benchmark = True
    record = Record(arguments.out, arguments.seconds)
    bench = Bench(record, device, tiny=arguments.tiny, backend=arguments.backend)
    for part in arguments.parts:
        getattr(bench, part)()
    text = record.markdown()
    arguments.out.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
