"""What a step costs: FLOPs, memory, time. Exact where it can be, else an estimate that says so.

Convention of TFLOP/s and MFU: matrix products, convolutions and full attention of the trained
network, three times the forward pass (twice for layers that LoRA keeps frozen), a multiply-add
being two; recomputation, the frozen VAE and text encoder, and elementwise work count nothing. MFU
divides by the dense bf16 peak of the device.
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from modeling.data.batch_size import tokens
from modeling.discriminator import DiscriminatorConfig, PatchDiscriminator3d
from modeling.dit_config import DiTConfig
from modeling.dit_cost import forward_flops
from modeling.train.lora_config import LoraTraining, lora_forward_flops, num_lora_parameters
from modeling.vae import CausalVAE, VAEConfig
from schemas.tier import Bucket

TRAINING_FACTOR = 3  # a forward pass, and two products per product backward

# Dense bf16 TFLOP/s, from the vendor's data sheets. SXM unless named otherwise.
_PEAK_TFLOPS = {
    "H200": 989.4,
    "H100 PCIe": 756.0,
    "H100": 989.4,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
    "B200": 2250.0,
}
_BYTES_PER_WEIGHT = 16  # fp32 weight, gradient and both moments of AdamW
_BYTES_OF_EMA = 4
_BYTES_PER_FROZEN_WEIGHT = 4


def peak_tflops(device: torch.device) -> float | None:
    """Of the device's matrix units in bf16; None where it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in _PEAK_TFLOPS.items() if part in name), None)


def dit_step_flops(
    config: DiTConfig, bucket: Bucket, num_text_tokens: int, lora: LoraTraining | None = None
) -> float:
    """Of training on one sample. With LoRA, a frozen layer's weights take no gradient."""
    forward = forward_flops(
        config, num_image_tokens=tokens(bucket), num_text_tokens=num_text_tokens
    )
    if lora is None:
        return TRAINING_FACTOR * forward
    num_tokens = tokens(bucket) + num_text_tokens
    num_blocks = config.num_layers + config.num_single_layers
    attention = 4.0 * num_blocks * num_tokens**2 * config.hidden_size
    added = lora_forward_flops(
        config, lora, num_image_tokens=tokens(bucket), num_text_tokens=num_text_tokens
    )
    return 2 * forward + attention + TRAINING_FACTOR * added


@cache
def vae_encode_flops(config_json: str, bucket_name: str) -> float:
    """Of encoding one sample, counted by running the network without data."""
    config, bucket = VAEConfig.model_validate_json(config_json), Bucket.from_name(bucket_name)
    with torch.device("meta"):
        vae = CausalVAE(config)
        video = torch.empty(1, config.in_channels, *_shape(bucket))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        vae.encode(video)
    return float(counter.get_total_flops())


@cache
def vae_step_flops(config_json: str, bucket_name: str) -> float:
    """Of training on one sample, without perceptual network and discriminator."""
    config, bucket = VAEConfig.model_validate_json(config_json), Bucket.from_name(bucket_name)
    with torch.device("meta"):
        vae = CausalVAE(config)
        latent = torch.empty(1, *config.latent_shape(*_shape(bucket)))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        vae.decode(latent)
    decode = float(counter.get_total_flops())
    return TRAINING_FACTOR * (vae_encode_flops(config_json, bucket_name) + decode)


@cache
def discriminator_flops(config_json: str, bucket_name: str) -> float:
    """Of judging one sample once, forward."""
    config = DiscriminatorConfig.model_validate_json(config_json)
    bucket = Bucket.from_name(bucket_name)
    with torch.device("meta"):
        network = PatchDiscriminator3d(config)
        video = torch.empty(1, config.in_channels, *_shape(bucket))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(video)
    return float(counter.get_total_flops())


def _shape(bucket: Bucket) -> tuple[int, int, int]:
    return bucket.num_frames, bucket.height, bucket.width


@dataclass(frozen=True)
class Memory:
    """Estimated bytes of training: what stays, and what a micro-batch adds."""

    weights: float
    activations: float

    @property
    def total(self) -> float:
        return self.weights + self.activations


# Bytes that a dual-stream block keeps per token and unit of width, by how much is recomputed and
# the size of a value. Counted from the tensors that autograd saves; selective: products alone.
_KEPT_BYTES = {
    ("off", 4): 104.0,
    ("off", 2): 67.0,  # norms stay in fp32
    ("selective", 4): 48.0,
    ("selective", 2): 24.0,
    ("full", 4): 4.0,
    ("full", 2): 4.0,
}


def dit_memory(
    config: DiTConfig,
    num_weights: int,
    *,
    num_tokens: int,
    checkpointing: str,
    value_bytes: int,
    has_ema: bool,
    num_shards: int = 1,
    lora: LoraTraining | None = None,
) -> Memory:
    """Of one process, with `num_tokens` of its micro-batch, text included."""
    frozen = 0 if lora is None else num_weights
    trained = num_weights if lora is None else num_lora_parameters(config, lora)
    weights = trained * (_BYTES_PER_WEIGHT + _BYTES_OF_EMA * has_ema) / num_shards
    weights += frozen * _BYTES_PER_FROZEN_WEIGHT
    if num_shards > 1:
        # One block computes while the next is gathered; gradients are summed in fp32.
        block = num_weights * 2 / (2 * config.num_layers + config.num_single_layers)
        weights += block * (2 * value_bytes + value_bytes + 4)
    num_blocks = config.num_layers + config.num_single_layers
    kept = _KEPT_BYTES[checkpointing, value_bytes] * num_blocks
    # One block is whole at a time even where all is recomputed.
    kept += _KEPT_BYTES["off", value_bytes]
    return Memory(weights, kept * num_tokens * config.hidden_size)


# Without fused kernels norms and all that follows them stay in fp32, beside the copies in bf16 that
# the convolutions keep. Measured on an H200: 121 GiB where fused kernels are reckoned to take 46.
_PLAIN_IN_BF16 = 2.6


def vae_memory(
    config: VAEConfig,
    num_weights: int,
    bucket: Bucket,
    num_samples: int,
    *,
    is_bf16: bool,
    is_fused: bool,
    checkpointing: bool,
    has_ema: bool,
) -> Memory:
    """The finest level dominates: its residual blocks keep about five tensors each."""
    value_bytes = 4.0
    if is_bf16:
        value_bytes = 2.0 if is_fused else 2.0 * _PLAIN_IN_BF16
    weights = num_weights * (_BYTES_PER_WEIGHT + _BYTES_OF_EMA * has_ema)
    num_values = num_samples * bucket.num_frames * bucket.height * bucket.width
    channels = config.block_out_channels
    kept_tensors = 5 * (2 * config.layers_per_block + 1) + 6
    if checkpointing:
        kept_tensors = 2 * config.layers_per_block + 7
    coarser = 1.25  # levels below hold a quarter or an eighth of the positions
    return Memory(weights, num_values * channels[0] * kept_tensors * coarser * value_bytes)


def device_memory(device: torch.device) -> float | None:
    """Bytes of the GPU; None on a CPU, whose memory others use too."""
    if device.type != "cuda":
        return None
    return float(torch.cuda.get_device_properties(device).total_memory)
