"""The networks that `train_step` compares, each with its step: forward, loss, backward, AdamW.

Shape suffixes: B batch, C channels, T frames, H height, W width, L text tokens, D width.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.fp8_linear import Recipe, use_fp8
from modeling.attention_check import AttentionChoice
from modeling.block_operations import PLAIN, BlockOperations
from modeling.dit import DIT_CONFIGS, DiTConfig, VideoDiT
from modeling.dit_cost import forward_flops
from modeling.kernels.select import apply_kernels

RATE = 1e-4


@dataclass(frozen=True)
class Shape:
    """Samples of one size; a token is 1 x 2 x 2 latent cells."""

    batch: int
    grid_THW: tuple[int, int, int]
    num_text: int = 256

    @property
    def num_image(self) -> int:
        t, h, w = self.grid_THW
        return t * h * w

    @property
    def num_tokens(self) -> int:
        """Of a step, text included."""
        return self.batch * (self.num_image + self.num_text)

    def __str__(self) -> str:
        return f"{self.batch} x {self.num_image} + {self.num_text} text"


SHAPES = {
    "small": Shape(32, (1, 16, 16)),
    "medium": Shape(4, (17, 16, 16)),
    "long": Shape(1, (32, 32, 32)),
}
TINY_SHAPES = {
    "small": Shape(2, (1, 2, 2), 3),
    "medium": Shape(2, (2, 2, 2), 3),
    "long": Shape(1, (2, 2, 4), 3),
}


def network_config(*, tiny: bool) -> DiTConfig:
    """8 dual-stream and 16 single-stream blocks of width 1536; tiny: to try the program."""
    return DIT_CONFIGS["tiny" if tiny else "1.3b"]


def step_flops(config: DiTConfig, shape: Shape) -> tuple[float, float]:
    """By the convention, and with the products that attention's backward pass does once more.

    Convention: matrix products and full attention, three times the forward pass. The kernels
    compute the attention scores again in the backward pass: 2.5 times the forward there, not 2.
    """
    forward = shape.batch * forward_flops(
        config, num_image_tokens=shape.num_image, num_text_tokens=shape.num_text
    )
    total = shape.num_image + shape.num_text
    num_blocks = config.num_layers + config.num_single_layers
    attention = shape.batch * num_blocks * 4 * total * total * config.hidden_size
    return 3.0 * forward, 3.0 * forward + 0.5 * attention


def inputs(
    config: DiTConfig, shape: Shape, device: torch.device, seed: int = 0
) -> dict[str, Tensor]:
    """Latents with structure, so that a loss can fall: smooth waves, another for each sample."""
    generator = torch.Generator().manual_seed(seed)
    t, h, w = (size * patch for size, patch in zip(shape.grid_THW, config.patch, strict=True))
    rate = torch.rand(shape.batch, config.in_channels, 4, 1, 1, 1, generator=generator)
    axes = torch.meshgrid(torch.arange(t), torch.arange(h), torch.arange(w), indexing="ij")
    angle = sum(rate[:, :, i] * axis for i, axis in enumerate(axes)) + 6 * rate[:, :, 3]
    latent = 1.4 * torch.sin(angle)
    sigma_B = torch.rand(shape.batch, generator=generator)
    noise = torch.randn(latent.shape, generator=generator)
    mix = sigma_B.view(-1, 1, 1, 1, 1)
    text = torch.randn(shape.batch, shape.num_text, config.text_embed_dim, generator=generator)
    pooled = torch.randn(shape.batch, config.pooled_projection_dim, generator=generator)
    on_device = {
        "latent_BCTHW": (1 - mix) * latent + mix * noise,
        "target_BCTHW": noise - latent,
        "text_BLD": text.bfloat16(),
        "pooled_BD": pooled.bfloat16(),
        "sigma_B": sigma_B,
    }
    return {name: value.to(device) for name, value in on_device.items()}


@dataclass(frozen=True)
class Variant:
    """What is trained and how. Each field is one optimization that can be on or off."""

    network: Literal["diffusers", "ours"] = "ours"
    compiled: bool = True
    operations: BlockOperations = PLAIN
    attention: AttentionChoice | None = None  # None: PyTorch's own choice
    cudnn_first: bool = False  # for diffusers, which takes no attention of ours
    no_mask: bool = False  # for diffusers, which makes a mask where all text is valid too
    fp8: Recipe | None = None
    graph: bool = False
    backend: str = "inductor"


class Step:
    """One training step of a variant on fixed input buffers."""

    def __init__(
        self, variant: Variant, config: DiTConfig, shape: Shape, device: torch.device, seed: int = 0
    ) -> None:
        self.variant, self.config, self.shape, self.device = variant, config, shape, device
        self.fields = inputs(config, shape, device, seed)
        torch.manual_seed(0)
        self.network, blocks = _build(variant, config, device)
        if variant.compiled:
            for block in blocks:
                block.compile(backend=variant.backend, dynamic=False)
        self.network.train()
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=RATE, fused=True, capturable=variant.graph
        )
        self.loss = torch.zeros((), device=device)
        self._call: Callable[[], None] = self._train
        self._lengths = torch.full((shape.batch,), shape.num_text)

    def __call__(self) -> None:
        self._call()

    def capture(self) -> None:
        """Record the step as one CUDA graph; from then on calls replay it."""
        stream: Any = torch.cuda.Stream
        side = stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._train()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            self._train()
        self._call = graph.replay

    def load(self, seed: int) -> None:
        """Another batch into the same buffers."""
        for name, value in inputs(self.config, self.shape, torch.device("cpu"), seed).items():
            self.fields[name].copy_(value)

    def forward(self) -> Tensor:
        return self._predict().float()

    def _train(self) -> None:
        loss = (self.forward() - self.fields["target_BCTHW"]).square().mean()
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss.copy_(loss.detach())

    def _predict(self) -> Tensor:
        f = self.fields
        if self.variant.network == "diffusers":
            mask = torch.ones(f["text_BLD"].shape[:2], device=self.device, dtype=torch.int64)
            latent = f["latent_BCTHW"].bfloat16()
            timestep = f["sigma_B"] * 1000
            with _first_cudnn(self.variant.cudnn_first):
                (out,) = self.network(
                    latent, timestep, f["text_BLD"], mask, f["pooled_BD"], None, return_dict=False
                )
            return cast(Tensor, out)
        with torch.autocast(self.device.type, torch.bfloat16):
            return cast(
                Tensor,
                self.network(
                    f["latent_BCTHW"], f["sigma_B"], f["text_BLD"], self._lengths, f["pooled_BD"]
                ),
            )


def _first_cudnn(wanted: bool) -> AbstractContextManager[object]:
    if not wanted:
        return nullcontext()
    rest = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    return cast(
        AbstractContextManager[object],
        sdpa_kernel([SDPBackend.CUDNN_ATTENTION, *rest], set_priority=True),
    )


def _build(
    variant: Variant, config: DiTConfig, device: torch.device
) -> tuple[nn.Module, list[nn.Module]]:
    """The network and its blocks, which are compiled one by one."""
    if variant.network == "diffusers":
        import diffusers

        with device:  # drawing 1.3 billion numbers on a CPU takes longer than the measurement
            made: Any = diffusers.HunyuanVideoTransformer3DModel(**config.model_dump())  # type: ignore[no-untyped-call]
        theirs = made.to(device, torch.bfloat16)
        their_blocks = [*theirs.transformer_blocks, *theirs.single_transformer_blocks]
        if variant.no_mask:
            for block in their_blocks:
                block.register_forward_pre_hook(_without_mask)
        return theirs, their_blocks
    with device:
        ours = VideoDiT(config)
    apply_kernels(ours, variant.operations)
    if variant.attention is not None:
        ours.set_attention(variant.attention.attention)
    blocks = [*ours.double_blocks, *ours.single_blocks]
    if variant.fp8 is not None:
        use_fp8(nn.ModuleList(blocks), variant.fp8)
    return ours, blocks


def _without_mask(block: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Image, text, time, mask, ...: the blocks of diffusers take no other order."""
    del block
    return (*arguments[:3], None, *arguments[4:])


@torch.no_grad()
def randomize(network: nn.Module, std: float = 0.02) -> None:
    """Values in every tensor: a fresh network's gates are zero, and its comparisons empty."""
    device = next(network.parameters()).device
    generator = torch.Generator(device).manual_seed(1)
    for name, parameter in network.named_parameters():
        noise = std * torch.randn(parameter.shape, generator=generator, device=device)
        is_scale = "norm" in name and parameter.ndim == 1 and name.endswith("weight")
        parameter.copy_(noise + 1 if is_scale else noise)
