"""Train the overlay detector on renderings made while it trains; go on where a call was ended.

Sample N of the training is rendering N, so a resumed training sees what an unbroken one would.
With `repeats` above one, each batch comes back later with another brightness: the device then
need not wait for the processors that render. The weights' running average is what is kept.

Needs torch, OpenCV, Pillow and matplotlib (for its fonts); no pydantic, no network.
"""

import copy
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from modeling.perception.overlays.backgrounds import Backgrounds
from modeling.perception.overlays.classes import CLASSES, REPORTED
from modeling.perception.overlays.loss import Targets, collate_truths, detection_loss
from modeling.perception.overlays.network import Detector, places
from modeling.perception.overlays.precision import (
    Detections,
    average_precision,
    judged,
    suppress,
    threshold_for,
)
from modeling.perception.overlays.render import Truth, render_sample

CHECKPOINT, METRICS, AVERAGED = "checkpoint.pt", "metrics.jsonl", "averaged.pt"
MAX_DETECTIONS = 100
MAX_IOU = 0.55  # two boxes of a class that overlap by more are one
_VALIDATION_SEED = 1 << 20
_POOL_BATCHES = 256
_LOADER_DEADLINE_S = 120
_log = logging.getLogger(__name__)
Batch = tuple[Tensor, list[Truth]]


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """`repeats`: steps for each rendered batch. Height and width are multiples of 32.

    `watermark_factor`: how much likelier watermarks are in the training's renderings than in those
    that judge. `seed`: of the renderings; another one where a network is trained further.
    """

    input_HW: tuple[int, int] = (320, 512)
    num_steps: int = 20_000
    batch_size: int = 32
    repeats: int = 1
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    average: float = 0.999
    num_validation: int = 400
    watermark_factor: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if any(side % 32 for side in self.input_HW):
            raise ValueError(f"height and width must be multiples of 32, got {self.input_HW}")


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop and how often to save: none of it changes what a step does.

    With `seconds`, the learning rate follows the time that all calls together have taken.
    """

    seconds: float | None = None
    stop_after: int | None = None  # steps, before the last
    save_every_s: float = 60.0
    num_workers: int = 0


class Renderings(Dataset[tuple[Tensor, Truth]]):
    """Rendering N as a uint8 picture H x W x 3 and its boxes."""

    def __init__(
        self, path: Path, split: str, seed: int, input_HW: tuple[int, int],
        watermark_factor: float = 1.0,
    ) -> None:  # fmt: skip
        self._backgrounds = Backgrounds(path, split)
        self._split, self._seed, self._input_HW = split, seed, input_HW
        self._watermark_factor = watermark_factor

    def __getitem__(self, number: int) -> tuple[Tensor, Truth]:
        cv2.setNumThreads(1)
        image, truth = render_sample(
            number, self._seed, self._backgrounds, self._input_HW, self._split,
            self._watermark_factor,
        )  # fmt: skip
        return torch.from_numpy(image), truth


def train(
    backgrounds: Path, out: Path, config: TrainConfig, limits: Limits | None = None,
    *, init: Path | None = None,
) -> Detector | None:  # fmt: skip
    """The averaged network; None when `stop_after` came first.

    `init`: the AVERAGED of another training, to begin with.
    """
    limits = limits or Limits()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    network: Detector = (Detector() if init is None else _read_averaged(init)[0]).to(
        device, memory_format=torch.channels_last
    )  # type: ignore[call-overload]
    averaged: Detector = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.AdamW(_groups(network, config), lr=config.learning_rate)
    first, spent_s = _resume(out / CHECKPOINT, network, averaged, optimizer)
    started = saved = logged = time.monotonic()
    centers, strides = places(config.input_HW, device)
    batches = _batches(backgrounds, config, limits, first)
    pool: list[tuple[Tensor, Targets]] = []
    network.train()
    step = first
    while step < config.num_steps:
        seconds = spent_s + time.monotonic() - started
        progress = max(step / config.num_steps, seconds / limits.seconds if limits.seconds else 0)
        if progress >= 1:
            break
        rng = np.random.default_rng([config.seed, 1, step])
        if step % config.repeats == 0 or not pool:
            images, truths = next(batches)
            fresh = (images.to(device), collate_truths(truths, config.input_HW).to(device))
            pool = [*pool, fresh][-_POOL_BATCHES if config.repeats > 1 else -1 :]
            images, targets = fresh
        else:
            images, targets = pool[int(rng.integers(0, len(pool)))]
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _schedule(progress)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            boxes, logits = network(_lit(images, rng))
        losses = detection_loss(boxes, logits, centers, strides, targets)
        optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
        step += 1
        _average(averaged, network, min(config.average, (1 + step) / (10 + step)))
        now = time.monotonic()
        if now - logged > 5 or step == config.num_steps:
            logged = now
            values = {name: round(float(value.detach()), 4) for name, value in losses.items()}
            _write(out, {"step": step, "seconds": round(spent_s + now - started, 1), **values})
        is_stop = step == limits.stop_after
        if is_stop or now - saved > limits.save_every_s:
            saved = now
            _save(out, network, averaged, optimizer, step, spent_s + now - started)
        if is_stop:
            return None
    _save(out, network, averaged, optimizer, step, spent_s + time.monotonic() - started)
    torch.save({"averaged": averaged.state_dict(), "step": step}, out / AVERAGED)
    return averaged.eval()


def validate(
    network: Detector, backgrounds: Path, config: TrainConfig, *, num_workers: int, precision: float
) -> tuple[dict[str, float], dict[str, float]]:
    """Figures on held-out pictures and fonts, and per kind the score that is right so often.

    The thresholds come from as many other renderings of the same pictures and fonts.
    """
    found, truths = _found_in(network, backgrounds, config, 0, num_workers)
    others = _found_in(network, backgrounds, config, config.num_validation, num_workers)
    figures: dict[str, float] = {}
    thresholds: dict[str, float] = {}
    for label, name in enumerate(REPORTED):
        _, hits, total = judged(found, truths, label)
        figures[f"ap50_{name}"] = average_precision(hits, total)
        scores, hits, _ = judged(*others, label)
        thresholds[name] = threshold_for(scores, hits, precision=precision, least=0.1)
    figures["map50"] = float(np.nanmean([figures[f"ap50_{name}"] for name in REPORTED]))
    plain = [
        any(score >= thresholds[REPORTED[label]]
            for score, label in zip(f.scores_N, f.labels_N, strict=True))
        for f, truth in zip(found, truths, strict=True)
        if not (truth.labels_N < len(REPORTED)).any()
    ]  # fmt: skip
    figures["plain_pictures_with_alarm"] = float(np.mean(plain)) if plain else float("nan")
    return figures, thresholds


def _found_in(
    network: Detector, backgrounds: Path, config: TrainConfig, first: int, num_workers: int
) -> tuple[list[Detections], list[Truth]]:
    """In `num_validation` held-out renderings from number `first` on."""
    device = next(network.parameters()).device
    loader = _loader(
        Renderings(backgrounds, "held_out", _VALIDATION_SEED, config.input_HW),
        range(first, first + config.num_validation), config.batch_size, num_workers,
    )  # fmt: skip
    found: list[Detections] = []
    truths: list[Truth] = []
    for images, batch_truths in loader:
        found += detect(network, images.to(device))
        truths += batch_truths
    return found, truths


def detect(network: Detector, images_NHWC: Tensor) -> list[Detections]:
    """Boxes of the reported classes, the best of each place, without repetitions."""
    with torch.inference_mode():
        boxes, scores, labels = best_boxes(*network.eval()(_scaled(images_NHWC)))
    height, width = images_NHWC.shape[1:3]
    shares = boxes / torch.tensor([width, height, width, height], device=boxes.device)
    return [
        suppress(
            Detections(b.clamp(0, 1).cpu().numpy(), s.cpu().numpy(), k.cpu().numpy()),
            max_iou=MAX_IOU,
        )
        for b, s, k in zip(shares, scores, labels, strict=True)
    ]


def best_boxes(boxes_NA4: Tensor, logits_NAK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The MAX_DETECTIONS surest places: boxes in pixels, scores, indices into REPORTED."""
    probability = logits_NAK[..., : len(REPORTED)].sigmoid() * logits_NAK[..., -1:].sigmoid()
    scores_NA, labels_NA = probability.max(2)
    count = min(MAX_DETECTIONS, scores_NA.shape[1])
    scores, index = scores_NA.topk(count, dim=1)
    boxes = torch.gather(boxes_NA4, 1, index[..., None].expand(-1, -1, 4))
    return boxes, scores, torch.gather(labels_NA, 1, index)


def load_averaged(out: Path) -> tuple[Detector, int]:
    """What `train` ended with, on the CPU, and its step."""
    network, step = _read_averaged(out / AVERAGED)
    return network.eval(), step


def _read_averaged(path: Path) -> tuple[Detector, int]:
    state = torch.load(path, weights_only=True, map_location="cpu")
    network = Detector()
    network.load_state_dict(state["averaged"])
    return network, int(state["step"])


def config_json(config: TrainConfig) -> str:
    return json.dumps(asdict(config) | {"classes": CLASSES}, sort_keys=True)


def _batches(path: Path, config: TrainConfig, limits: Limits, first: int) -> Iterator[Batch]:
    """From the batch on that belongs to step `first`."""
    rendered = Renderings(path, "train", config.seed, config.input_HW, config.watermark_factor)
    start = -(-first // config.repeats) * config.batch_size
    stop = -(-config.num_steps // config.repeats) * config.batch_size + config.batch_size
    return iter(_loader(rendered, range(start, stop), config.batch_size, limits.num_workers))


def _loader(
    rendered: Renderings, numbers: range, batch_size: int, num_workers: int
) -> DataLoader[tuple[Tensor, Truth]]:
    return DataLoader(
        rendered,
        batch_size=batch_size,
        sampler=numbers,
        num_workers=num_workers,
        collate_fn=_collate,
        timeout=_LOADER_DEADLINE_S if num_workers else 0,
        prefetch_factor=4 if num_workers else None,
    )


def _collate(samples: list[tuple[Tensor, Truth]]) -> Batch:
    return torch.stack([image for image, _ in samples]), [truth for _, truth in samples]


def _scaled(images_NHWC: Tensor) -> Tensor:
    return images_NHWC.permute(0, 3, 1, 2).float() / 255


def _lit(images_NHWC: Tensor, rng: np.random.Generator) -> Tensor:
    """In [0, 1], each picture a little brighter or darker, with more or less contrast."""
    count = len(images_NHWC)
    draws = torch.from_numpy(rng.uniform(-1, 1, (2, count, 1, 1, 1)).astype(np.float32))
    gain, offset = (draw.to(images_NHWC.device) for draw in draws)
    lit: Tensor = (_scaled(images_NHWC) * (1 + 0.15 * gain) + 0.06 * offset).clamp(0, 1)
    return lit


def _schedule(progress: float) -> float:
    """Warm up over the first thirtieth, then a cosine to a hundredth."""
    return float(min(1.0, progress * 30 + 0.01) * (0.505 + 0.495 * np.cos(np.pi * progress)))


def _groups(network: nn.Module, config: TrainConfig) -> list[dict[str, object]]:
    decayed = [p for p in network.parameters() if p.ndim > 1]
    free = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": config.weight_decay},
            {"params": free, "weight_decay": 0.0}]  # fmt: skip


def _average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for mean, value in zip(
            averaged.state_dict().values(), network.state_dict().values(), strict=True
        ):
            if mean.dtype.is_floating_point:
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)


def _write(out: Path, row: dict[str, object]) -> None:
    _log.info("%s", row)
    with (out / METRICS).open("a") as file:
        file.write(json.dumps(row) + "\n")


def _save(
    out: Path, network: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer,
    step: int, seconds: float,
) -> None:  # fmt: skip
    state = {"network": network.state_dict(), "averaged": averaged.state_dict(),
             "optimizer": optimizer.state_dict(), "step": step, "seconds": seconds}  # fmt: skip
    partial = (out / CHECKPOINT).with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(out / CHECKPOINT)


def _resume(
    path: Path, network: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, float]:
    """The step to go on with, and the seconds that the earlier calls took."""
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, weights_only=True, map_location="cpu")
    network.load_state_dict(state["network"])
    averaged.load_state_dict(state["averaged"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), float(state["seconds"])
