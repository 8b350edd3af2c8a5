"""Start a `CausalVAE` as a linear transform coder instead of at random.

The residual branches begin at zero, so that what is left is linear: the first convolution, the
strided ones, shortcuts, enlargements, the last one. Only two group norms with SiLU stand in the
way, one before each last convolution. They are made transparent: a pair of large constant channels
fixes the norm's scale, and silu(v) - silu(-v) = v turns a pair of channels into its linear value.
The encoder then computes, level by level, principal components of 2 x 2 (x 2) blocks, and the
decoder paints the mean color of every latent position. Training goes on from there.

Shape suffixes: B batch, C channels, T frames, H height, W width, N rows.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.causal_conv import CausalConv3d
from modeling.gaussian import DiagonalGaussian
from modeling.vae import CausalVAE
from modeling.vae_layers import DownBlock, ResnetBlock, UpBlock

_CONSTANT = 4.0  # of the two channels that fix a norm's scale; the signals stay below 1
_CARRIED_SHARE = 0.75  # of a level's channels hold components, the others random features
_LEAST_DEVIATION = 0.1  # channels quieter than that are not made louder for the branches
_FIRST_LOGVAR = -10.0  # start with almost no noise in the latent
_CENTRE = (2, 1, 1)  # the tap of a causal 3 x 3 x 3 kernel that sees the present position


@torch.no_grad()
def start_linear(vae: CausalVAE, videos: list[Tensor]) -> None:
    """Set the weights from a few batches (B, 3, T, H, W), images and clips in equal parts.

    Needs one group a norm, no attention and as many channels in the last two levels.
    """
    config = vae.config
    channels = config.block_out_channels
    if config.norm_num_groups != 1 or channels[-1] != channels[-2]:
        raise ValueError(f"no linear start for {config!r}")
    for block in _resnets(vae):
        nn.init.zeros_(block.conv2.conv.weight)
        nn.init.zeros_(cast(Tensor, block.conv2.conv.bias))
    _start_encoder(vae, videos)
    posteriors = [vae.encode(video) for video in videos]
    _start_decoder(vae, videos, posteriors)
    _even_out_branches(vae, videos)


def _start_encoder(vae: CausalVAE, videos: list[Tensor]) -> None:
    encoder, num_latent = vae.encoder, vae.config.latent_channels
    _pass_on(encoder.conv_in.conv, torch.eye(3), _CENTRE)
    carried = 3
    signals = [encoder.conv_in(video) for video in videos]
    blocks = cast("list[DownBlock]", [*encoder.down_blocks])
    for number, block in enumerate(blocks):
        for resnet in block.resnets:
            if cast(ResnetBlock, resnet).conv_shortcut is not None:
                _pass_on(_shortcut(resnet), torch.eye(carried), (0, 0, 0))
            signals = [resnet(signal) for signal in signals]
        if not block.downsamplers:
            continue
        layer = cast(CausalConv3d, block.downsamplers[0].conv)
        stride = cast("tuple[int, int, int]", layer.conv.stride)
        basis = _components([signal[:, :carried] for signal in signals], stride)
        is_last = not any(b.downsamplers for b in blocks[number + 1 :])
        width = layer.conv.out_channels
        kept = min(len(basis), width - 2 - num_latent if is_last else int(width * _CARRIED_SHARE))
        # Components keep the amplitude of their block's mean, so that no level grows.
        basis = basis[:kept] / (stride[0] * stride[1] * stride[2]) ** 0.5
        if is_last:  # the latent ones first, then the same negative, then the rest
            basis = torch.cat([basis[:num_latent], -basis[:num_latent], basis[num_latent:]])
            _add_constants(layer.conv)
        cut = basis.view(len(basis), carried, stride[0], 2, 2)
        layer.conv.weight[: len(basis)] = 0
        layer.conv.weight[: len(basis), :carried, 3 - stride[0] :, 1:, 1:] = cut
        _zero_bias(layer.conv, len(basis))
        carried = len(basis)
        signals = [layer(signal) for signal in signals]
    _make_transparent(encoder.conv_norm_out, signals)
    flat_CN = torch.cat([s[:, :num_latent].transpose(0, 1).flatten(1) for s in signals], 1)
    loudness = flat_CN.square().mean(1).rsqrt().repeat(2)  # latents of unit variance
    encoder.conv_norm_out.weight[: 2 * num_latent] *= loudness
    encoder.conv_norm_out.bias[: 2 * num_latent] *= loudness
    _join_pairs(encoder.conv_out.conv, num_latent)
    for conv in (vae.quant_conv, vae.post_quant_conv):
        nn.init.zeros_(cast(Tensor, conv.bias))
        nn.init.dirac_(conv.weight)
    cast(Tensor, vae.quant_conv.bias)[num_latent:] = _FIRST_LOGVAR


def _start_decoder(
    vae: CausalVAE, videos: list[Tensor], posteriors: list[DiagonalGaussian]
) -> None:
    decoder = vae.decoder
    latent_NC = torch.cat([p.mean.permute(0, 2, 3, 4, 1).flatten(0, 3) for p in posteriors])
    color_NC = torch.cat([_mean_color(video) for video in videos])
    with_one = torch.cat([latent_NC, torch.ones_like(latent_NC[:, :1])], 1)
    solution = torch.linalg.lstsq(with_one.double(), color_NC.double()).solution.float()
    _pass_on(decoder.conv_in.conv, solution[:-1].T, _CENTRE)
    cast(Tensor, decoder.conv_in.conv.bias)[:3] = solution[-1]
    last_block = decoder.up_blocks[-1]
    for block in cast("list[UpBlock]", [*decoder.up_blocks]):
        for resnet in block.resnets:
            if cast(ResnetBlock, resnet).conv_shortcut is None:
                continue
            eye = torch.eye(3)
            both = torch.cat([eye, -eye]) if block is last_block else eye
            _pass_on(_shortcut(resnet), both, (0, 0, 0))
            if block is last_block:
                _add_constants(_shortcut(resnet))
        for upsampler in block.upsamplers:
            _pass_on(cast(CausalConv3d, upsampler.conv).conv, torch.eye(3), _CENTRE)
    seen = _inputs_of([decoder.conv_norm_out], vae, videos)
    _make_transparent(decoder.conv_norm_out, seen[decoder.conv_norm_out])
    others = decoder.conv_out.conv.weight.clone() * 0.1
    _join_pairs(decoder.conv_out.conv, 3)
    decoder.conv_out.conv.weight[:, 6:-2] = others[:, 6:-2]


def _even_out_branches(vae: CausalVAE, videos: list[Tensor]) -> None:
    """Let every channel enter the residual branches with about unit variance and no mean."""
    seen = _inputs_of([block.norm1 for block in _resnets(vae)], vae, videos)
    for norm, signals in seen.items():
        mean, deviation = _clip_statistics(signals)
        flat_CN = torch.cat([s.transpose(0, 1).flatten(1) for s in signals], 1)
        spread = flat_CN.std(1)
        gain = 1 / spread.clamp_min(_LEAST_DEVIATION)
        gain[spread < 1e-4] = 0  # the constants are there for the norm only
        norm.weight.copy_(deviation * gain)
        norm.bias.copy_((mean - flat_CN.mean(1)) * gain)


def _resnets(vae: CausalVAE) -> list[ResnetBlock]:
    return [module for module in vae.modules() if isinstance(module, ResnetBlock)]


def _shortcut(resnet: nn.Module) -> nn.Conv3d:
    shortcut = cast(ResnetBlock, resnet).conv_shortcut
    assert shortcut is not None
    return shortcut.conv


def _zero_bias(conv: nn.Conv3d, num_rows: int) -> None:
    cast(Tensor, conv.bias)[:num_rows] = 0


def _pass_on(conv: nn.Conv3d, matrix: Tensor, tap: tuple[int, int, int]) -> None:
    """Let the first outputs be `matrix` times the first inputs, at one tap."""
    rows, columns = matrix.shape
    conv.weight[:rows] = 0
    conv.weight[:rows, :columns, tap[0], tap[1], tap[2]] = matrix.to(conv.weight)
    _zero_bias(conv, rows)


def _add_constants(conv: nn.Conv3d) -> None:
    """The last two outputs are constant, and cancel in the mean."""
    conv.weight[-2:] = 0
    bias = cast(Tensor, conv.bias)
    bias[-2], bias[-1] = _CONSTANT, -_CONSTANT


def _join_pairs(conv: nn.Conv3d, num: int) -> None:
    """Output k is channel k less channel num + k."""
    _pass_on(conv, torch.cat([torch.eye(num), -torch.eye(num)], 1), _CENTRE)
    conv.weight[num:] = 0
    nn.init.zeros_(cast(Tensor, conv.bias))


def _components(signals: list[Tensor], stride: tuple[int, int, int]) -> Tensor:
    """Principal components of the blocks that a strided convolution sees, strongest first."""
    moment = torch.zeros((), dtype=torch.float64)
    for signal in signals:
        if stride[0] == 2:
            signal = torch.cat([signal[:, :, :1], signal], 2)
        b, c, t, h, w = signal.shape
        cut = signal.reshape(b, c, t // stride[0], stride[0], h // 2, 2, w // 2, 2)
        rows = cut.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(b * t * h * w // stride[0] // 4, -1)
        moment = moment + (rows.T @ rows / len(rows)).double().cpu()
    _, vectors = torch.linalg.eigh(moment)
    components: Tensor = vectors.flip(1).T.float().to(signals[0].device)
    return components


def _mean_color(video: Tensor) -> Tensor:
    """The mean color of what each latent position stands for: (N, 3)."""
    mean = F.avg_pool3d(video, (1, 8, 8))
    if video.shape[2] > 1:
        mean = torch.cat([mean[:, :, :1], F.avg_pool3d(mean[:, :, 1:], (4, 1, 1))], 2)
    return mean.permute(0, 2, 3, 4, 1).flatten(0, 3)


def _inputs_of(
    norms: list[nn.GroupNorm], vae: CausalVAE, videos: list[Tensor]
) -> dict[nn.GroupNorm, list[Tensor]]:
    seen: dict[nn.GroupNorm, list[Tensor]] = {norm: [] for norm in norms}

    def note(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        seen[cast(nn.GroupNorm, norm)].append(inputs[0])

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    for video in videos:
        vae.decode(vae.encode(video).mean)
    for hook in hooks:
        hook.remove()
    return seen


def _clip_statistics(signals: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a clip over everything, averaged over clips."""
    flat = [signal.flatten(1) for signal in signals]
    mean = torch.cat([rows.mean(1) for rows in flat]).mean()
    return mean, torch.cat([rows.var(1) for rows in flat]).mean().sqrt()


def _make_transparent(norm: nn.GroupNorm, signals: list[Tensor]) -> None:
    mean, deviation = _clip_statistics(signals)
    norm.weight.fill_(float(deviation))
    norm.bias.fill_(float(mean))
