"""The plan of a run, printed before it starts: data, sizes, memory and time.

Numbers of samples, steps, tokens and FLOPs are exact; memory and seconds are estimates.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from modeling.data.plan import BucketPlan, EpochPlan
from modeling.dit_config import DiTConfig
from modeling.dit_cost import num_parameters
from modeling.train import compute, cost
from modeling.train.config import TrainConfig
from modeling.train.dit_task import fitted_config
from modeling.train.encoders import UNTRAINED_WARNING, find_vae
from modeling.train.layout import ONE_PROCESS, Layout
from modeling.train.lora_config import num_lora_parameters
from modeling.train.parts import micro_batch_size
from modeling.train.stream import BatchStream
from modeling.vae import CausalVAE, VAEConfig

# Share of the peak that a step is assumed to reach on a GPU.
_ASSUMED_SHARE = {"dit": 0.40, "vae": 0.20}
_GIB = 2.0**30


@dataclass(frozen=True)
class BucketCost:
    """One bucket of one stage: what a step of it takes."""

    stage: str
    bucket: BucketPlan
    micro_batch: int
    flops: float  # of the trained network, by the convention
    other_flops: float  # of frozen networks
    memory: Callable[[compute.Checkpointing], cost.Memory]


@dataclass(frozen=True)
class RunPlan:
    """What `describe` prints and the trainer takes its choices from."""

    config: TrainConfig
    device: torch.device
    layout: Layout
    num_parameters: int
    buckets: tuple[BucketCost, ...]
    epochs: tuple[tuple[str, EpochPlan], ...]
    checkpointing: compute.Checkpointing
    num_manifests: int
    num_samples: int

    @property
    def memory(self) -> cost.Memory:
        """Of the most demanding bucket."""
        return max((b.memory(self.checkpointing) for b in self.buckets), key=lambda m: m.total)


def make_plan(
    config: TrainConfig, stream: BatchStream, device: torch.device, layout: Layout = ONE_PROCESS
) -> RunPlan:
    """Everything that can be known before a network is built."""
    plans = [(stage.name, stream.plan(n)) for n, stage in enumerate(stream.stages)]
    costs = [
        _bucket_cost(config, device, name, bucket, layout)
        for name, plan in plans
        for bucket in plan.buckets
    ]
    if config.model == "dit":
        num_weights = num_parameters(_dit_config(config))
    else:
        num_weights = _num_vae_weights(config.vae.network_config.model_dump_json())
    available = cost.device_memory(device)
    checkpointing = compute.choose_checkpointing(
        config.compute.activation_checkpointing,
        lambda each: max((b.memory(each) for b in costs), key=lambda m: m.total),
        available,
    )
    return RunPlan(
        config=config,
        device=device,
        layout=layout,
        num_parameters=num_weights,
        buckets=tuple(costs),
        epochs=tuple(plans),
        checkpointing=checkpointing,
        num_manifests=len(config.data.shards),
        num_samples=len(stream.corpus),
    )


def describe(plan: RunPlan, *, first_step: int = 0) -> list[str]:
    """Lines for a person."""
    config, device = plan.config, plan.device
    size = config.dit.size if config.model == "dit" else config.vae.size
    network = config.dit.network if config.model == "dit" else config.vae.network
    name = "own config" if network is not None else size
    lines = [f"model    {config.model} ({name}), {plan.num_parameters:,} parameters"]
    if config.model == "dit":
        lines += _describe_lora(config) + _describe_encoders(config)
    dtype = "bf16" if compute.precision(config.compute, device) == torch.bfloat16 else "fp32"
    lines.append(
        f"device   {_device_name(device)}, {dtype} products, fp32 weights, recomputation "
        f"{plan.checkpointing}{', compiled' if config.compute.compile else ''}"
    )
    if plan.layout.num_processes > 1:
        lines.append(f"spread   {plan.layout.describe()}")
    lines += _describe_blocks(config, device)
    lines.append(f"data     {plan.num_samples} samples of {plan.num_manifests} manifests")
    rate = _flops_per_s(config, device)
    header = ("stage", "bucket", "samples", "repeated", "carried", "batch", "parts", "steps/epoch")
    rows = [(*header, "tokens/step", "TFLOP/step", "~s/step")]
    for each in plan.buckets:
        bucket = each.bucket
        seconds = (each.flops + each.other_flops) / rate
        rows.append(
            (
                each.stage,
                bucket.bucket.name,
                f"{bucket.num_samples:,}",
                f"{bucket.num_repeated:,}",
                f"{bucket.num_carried:,}",
                str(bucket.batch),
                str(-(-bucket.batch // each.micro_batch)),
                f"{bucket.num_steps:,}",
                f"{bucket.batch * bucket.tokens_per_sample:,}",
                f"{each.flops / 1e12:.3g}",
                f"{seconds:.2g}",
            )
        )
    lines += _table(rows)
    for name, epoch in plan.epochs:
        for bucket_name, num in epoch.left_out.items():
            lines.append(f"         {name}: {bucket_name} is left out, {num} samples fill no batch")
    memory = plan.memory
    each_process = " a process" if plan.layout.num_processes > 1 else ""
    lines.append(
        f"memory   ~{memory.total / _GIB:.2f} GiB{each_process}: {memory.weights / _GIB:.2f} for "
        f"weights and optimizer, {memory.activations / _GIB:.2f} for activations"
    )
    lines.append(f"run      steps {first_step} to {config.steps}, {_epochs(plan)}")
    return lines


def _epochs(plan: RunPlan) -> str:
    steps = plan.epochs[-1][1].num_steps
    return f"an epoch of {plan.epochs[-1][0]} has {steps:,} steps"


def _describe_lora(config: TrainConfig) -> list[str]:
    lora = config.lora
    if lora is None:
        return []
    num_trained = num_lora_parameters(_dit_config(config), lora)
    return [
        f"lora     rank {lora.rank} on {len(lora.targets)} kinds of layers: {num_trained:,} "
        "parameters are trained, all others stay"
    ]


def _describe_encoders(config: TrainConfig) -> list[str]:
    source = find_vae(config.dit.vae)
    text = config.dit.text_encoder
    lines = [f"behind   VAE {source.origin}: {source.folder or 'random weights'}"]
    lines.append(f"         text {text.states} and {text.pooled}, up to {text.max_tokens} tokens")
    if source.origin == "untrained":
        lines.append(f"WARNING  {UNTRAINED_WARNING}")
    if config.dit.distill is not None:
        teacher = config.dit.distill.teacher
        state = "" if (teacher / "config.json").is_file() else " (not there yet)"
        lines.append(f"teacher  {teacher}{state}")
    return lines


def _describe_blocks(config: TrainConfig, device: torch.device) -> list[str]:
    if config.model == "vae":
        around = compute.vae_kernel_choice(config.compute, device)
        return [f"blocks   {around.name} operations ({around.reason})"]
    kernels = compute.kernel_choice(config.compute, device)
    attention = compute.attention_choice(config.compute, config.dit.network_config, device)
    by = "PyTorch's choice" if attention is None else attention.describe()
    return [f"blocks   {kernels.name} operations ({kernels.reason})", f"         attention {by}"]


def _bucket_cost(
    config: TrainConfig, device: torch.device, stage: str, bucket: BucketPlan, layout: Layout
) -> BucketCost:
    num_local = max(1, bucket.batch // layout.data_ranks)
    micro = micro_batch_size(bucket.bucket, num_local, config.compute)
    is_bf16 = compute.precision(config.compute, device) == torch.bfloat16
    has_ema = config.ema is not None
    if config.model == "dit":
        network = _dit_config(config)
        text_tokens = config.dit.text_encoder.max_tokens
        vae_json = find_vae(config.dit.vae).config.model_dump_json()
        encode = cost.vae_encode_flops(vae_json, bucket.bucket.name)
        # Text stands on all peers that divide a sample.
        own_tokens = -(-bucket.tokens_per_sample // layout.context_ranks)
        num_tokens = micro * (own_tokens + text_tokens)
        step_flops = cost.dit_step_flops(network, bucket.bucket, text_tokens, config.lora)
        return BucketCost(
            stage,
            bucket,
            micro,
            num_local * step_flops / layout.context_ranks,
            num_local * encode,
            lambda checkpointing: cost.dit_memory(
                network,
                num_parameters(network),
                num_tokens=num_tokens,
                checkpointing=checkpointing,
                value_bytes=2 if is_bf16 else 4,
                has_ema=has_ema,
                num_shards=layout.shard_ranks,
                lora=config.lora,
            ),
        )
    vae = config.vae.network_config
    vae_json = vae.model_dump_json()
    is_fused = compute.vae_kernel_choice(config.compute, device).name == "fused"
    return BucketCost(
        stage,
        bucket,
        micro,
        num_local * cost.vae_step_flops(vae_json, bucket.bucket.name),
        0.0,
        lambda checkpointing: cost.vae_memory(
            vae,
            _num_vae_weights(vae_json),
            bucket.bucket,
            micro,
            is_bf16=is_bf16,
            is_fused=is_fused,
            checkpointing=checkpointing != "off",
            has_ema=has_ema,
        ),
    )


# Widths of the text encoders' outputs that are known without loading them; only for estimates.
_TEXT_WIDTHS = {"byte": 32, "smollm2": 576, "minilm": 384}


def _dit_config(config: TrainConfig) -> DiTConfig:
    network = config.dit.network_config
    text = config.dit.text_encoder
    return fitted_config(
        network,
        find_vae(config.dit.vae),
        text=_TEXT_WIDTHS.get(text.states, network.text_embed_dim),
        pooled=_TEXT_WIDTHS.get(text.pooled, network.pooled_projection_dim),
    )


@cache
def _num_vae_weights(config_json: str) -> int:
    with torch.device("meta"):
        vae = CausalVAE(VAEConfig.model_validate_json(config_json))
    return sum(p.numel() for p in vae.parameters())


def _flops_per_s(config: TrainConfig, device: torch.device) -> float:
    """An assumed share of a GPU's peak; on a CPU what a product of matrices reaches now."""
    peak = cost.peak_tflops(device)
    if peak is not None:
        return peak * 1e12 * _ASSUMED_SHARE[config.model]
    if device.type == "cuda":
        return 50e12
    return _measured_cpu_flops()


@cache
def _measured_cpu_flops() -> float:
    size = 384
    a = torch.ones(size, size)
    torch.mm(a, a)
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        torch.mm(a, a)
        seconds.append(time.perf_counter() - start)
    # Small networks reach about a quarter of what one large product does.
    return 0.25 * 2 * size**3 / max(min(seconds), 1e-6)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "         "
        + "  ".join(
            cell.ljust(width) if number < 2 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
