"""Train both towers on shards; a call that was ended goes on where it was, to the bit.

    OUT/cache/           decoded frames (clips.py)
    OUT/checkpoint.pt    weights, optimizer, step, and what the run is: written whole or not at all
    OUT/metrics.jsonl    one line per logged step

Nothing is drawn from a generator with a state: the order of the samples and their texts hang on
the seed and the step alone.
"""

import json
import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modeling.caption_text import CaptionTextConfig, caption_text
from modeling.data.corpus import ShardCorpus
from modeling.data.draw import permutation
from modeling.data.errors import DataError
from modeling.perception.videoclip.clips import CachedClip, cache_clips, load_frames
from modeling.perception.videoclip.config import VideoClipConfig
from modeling.perception.videoclip.loss import ContrastiveLoss
from modeling.perception.videoclip.retrieval import Retrieval, retrieval
from modeling.perception.videoclip.towers import TextTower, VideoTower

CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.jsonl"
_LOG = logging.getLogger(__name__)
# Empty texts teach nothing here, and nobody searches by JSON.
_TEXTS = CaptionTextConfig(drop_text=0.0, json_form=0.0)
_EVALUATION_BATCH = 16


class VideoClip(nn.Module):
    """Both towers and the loss with its temperature: all that learns."""

    def __init__(self, config: VideoClipConfig) -> None:
        super().__init__()
        self.video = VideoTower(config)
        self.text = TextTower(config)
        self.loss = ContrastiveLoss(config.loss)


@dataclass(frozen=True, slots=True)
class Trained:
    """`held_out` is None where no source was held out. `captioners` wrote the texts."""

    model: VideoClip
    seen: Retrieval
    held_out: Retrieval | None
    captioners: tuple[str, ...]
    losses: tuple[float, ...]  # of this call's steps


def train(
    manifests: Sequence[str],
    out: Path,
    config: VideoClipConfig,
    *,
    device: str = "cpu",
    checkpoint_every: int = 500,
    log_every: int = 50,
    on_step: Callable[[int], None] | None = None,
) -> Trained:
    """Up to `config.num_steps`. `on_step` is called after each, with its number from 1.

    Raises:
        DataError: shards that cannot be read, too few samples, or a folder of another run.

    """
    corpus = ShardCorpus.open(manifests)
    clips = cache_clips(corpus, out / "cache", num_frames=config.num_frames, side=config.side)
    learned, held_out = _split(clips, config)
    torch.manual_seed(config.seed)
    model = VideoClip(config).to(device)
    optimizer = _optimizer(model, config)
    identity = {"config": config.model_dump(mode="json"), "data": corpus.manifest_hash}
    first_step = _resume(out / CHECKPOINT, model, optimizer, identity)
    losses: list[float] = []
    for step in range(first_step, config.num_steps):
        batch = [learned[i] for i in _batch(step, len(learned), config)]
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * _schedule(step, config)
        losses.append(_step(model, optimizer, batch, step, config, device))
        done = step + 1
        if done % log_every == 0 or done == config.num_steps:
            line = {"step": done, "loss": losses[-1], "scale": float(model.loss.scale().detach())}
            with (out / METRICS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            _LOG.info("step %(step)d: loss %(loss).4f, scale %(scale).2f", line)
        if done % checkpoint_every == 0 or done == config.num_steps:
            _save(out / CHECKPOINT, model, optimizer, identity, done)
        if on_step is not None:
            on_step(done)
    return Trained(
        model=model,
        seen=evaluate(model, learned, device),
        held_out=evaluate(model, held_out, device) if held_out else None,
        captioners=tuple(sorted({clip.caption.captioner for clip in clips})),
        losses=tuple(losses),
    )


@torch.no_grad()
def evaluate(model: VideoClip, clips: Sequence[CachedClip], device: str) -> Retrieval:
    """With the whole captions, as sampling would render them."""
    texts = [clip.caption.to_prompt() for clip in clips]
    videos, vectors = [], []
    for start in range(0, len(clips), _EVALUATION_BATCH):
        part = slice(start, start + _EVALUATION_BATCH)
        videos.append(model.video(load_frames(clips[part]).to(device)))
        vectors.append(model.text(texts[part]))
    return retrieval(torch.cat(videos), torch.cat(vectors), texts)


def _split(
    clips: Sequence[CachedClip], config: VideoClipConfig
) -> tuple[list[CachedClip], list[CachedClip]]:
    learned = [clip for clip in clips if not clip.is_held_out(config.validation_share)]
    held_out = [clip for clip in clips if clip.is_held_out(config.validation_share)]
    if len(learned) < config.batch_size:
        problem = (
            f"{len(learned)} samples to learn from ({len(held_out)} are held out, by source file), "
            f"a batch has {config.batch_size}"
        )
        raise DataError("shards", problem, "lower --batch or --held-out, or give more shards")
    return learned, held_out


def _batch(step: int, num_samples: int, config: VideoClipConfig) -> list[int]:
    """Each epoch shuffles all samples; what does not fill its last batch waits for the next."""
    per_epoch = num_samples // config.batch_size
    epoch, position = divmod(step, per_epoch)
    order = permutation(num_samples, seed=config.seed, key="", step=epoch, stream="order")
    start = position * config.batch_size
    return [int(index) for index in order[start : start + config.batch_size]]


def _step(
    model: VideoClip,
    optimizer: torch.optim.Optimizer,
    batch: Sequence[CachedClip],
    step: int,
    config: VideoClipConfig,
    device: str,
) -> float:
    texts = [
        caption_text(clip.caption, _TEXTS, seed=config.seed, key=clip.key, step=step)
        for clip in batch
    ]
    text_id_N = torch.tensor([texts.index(text) for text in texts], device=device)
    video_ND = model.video(load_frames(batch).to(device))
    loss: Tensor = model.loss(video_ND, model.text(texts), text_id_N)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise FloatingPointError(f"the loss of step {step + 1} is {value}")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
    optimizer.step()
    return value


def _optimizer(model: VideoClip, config: VideoClipConfig) -> torch.optim.AdamW:
    """Decay for matrices alone; packaged networks learn at a rate of their own."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_packaged = name.startswith(("video.trunk.network.", "text.encoder.network."))
        rate = config.packaged_rate if is_packaged else config.learning_rate
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ],
        betas=(0.9, 0.98),
    )


def _schedule(step: int, config: VideoClipConfig) -> float:
    """Linear up, then half a cosine down to 0."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    left = max(1, config.num_steps - config.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * (step - config.warmup_steps) / left))


def _save(
    path: Path,
    model: VideoClip,
    optimizer: torch.optim.Optimizer,
    identity: dict[str, Any],
    step: int,
) -> None:
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "identity": identity,
        "step": step,
    }
    partial = path.with_suffix(f".{os.getpid()}.partial")
    torch.save(state, partial)
    partial.replace(path)


def _resume(
    path: Path, model: VideoClip, optimizer: torch.optim.Optimizer, identity: dict[str, Any]
) -> int:
    """The steps done. Raises DataError for a checkpoint of another run."""
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    for part, wanted in identity.items():
        if state["identity"][part] != wanted:
            raise DataError(
                str(path), f"was written with another {part}", "choose another --out, or delete it"
            )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    step = int(state["step"])
    _LOG.info("going on after step %d", step)
    return step
