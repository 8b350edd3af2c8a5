"""Which place answers for which box, and what it costs (SimOTA and GIoU).

SimOTA (Ge et al., arXiv 2107.08430): each box takes the places of least cost, as many as the sum
of its ten best overlaps says; a place that two boxes want goes to the cheaper. GIoU: Rezatofighi et
al., arXiv 1902.09630. All pictures of a batch are done at once, boxes padded to the longest list.

Shape suffixes: N pictures, G boxes of a picture, A places, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from modeling.perception.overlays.classes import CLASSES
from modeling.perception.overlays.render import Truth

_RADIUS = 2.5  # strides around a box's middle within which places may answer for it
_NUM_BEST = 10
_OVERLAP_WEIGHT = 3.0  # in the cost, as in the paper
_FAR = 1e5
_BOX_WEIGHT = 5.0  # in the loss
_EPS = 1e-7


@dataclass(frozen=True, slots=True)
class Targets:
    """Padded with boxes that `is_box` denies. Boxes in pixels of the input."""

    boxes_NG4: Tensor
    labels_NG: Tensor
    is_box_NG: Tensor
    is_ignored_NG: Tensor

    def to(self, device: torch.device) -> "Targets":
        return Targets(
            self.boxes_NG4.to(device), self.labels_NG.to(device), self.is_box_NG.to(device),
            self.is_ignored_NG.to(device),
        )  # fmt: skip


def collate_truths(truths: Sequence[Truth], input_HW: tuple[int, int]) -> Targets:
    longest = max(1, *(len(truth.labels_N) for truth in truths))
    boxes = torch.zeros(len(truths), longest, 4)
    labels = torch.zeros(len(truths), longest, dtype=torch.long)
    is_box = torch.zeros(len(truths), longest, dtype=torch.bool)
    is_ignored = torch.zeros_like(is_box)
    scale = torch.tensor([input_HW[1], input_HW[0]] * 2, dtype=torch.float32)
    for index, truth in enumerate(truths):
        count = len(truth.labels_N)
        boxes[index, :count] = torch.from_numpy(truth.boxes_N4) * scale
        labels[index, :count] = torch.from_numpy(truth.labels_N)
        ignored = torch.from_numpy(truth.ignored_N)
        is_box[index, :count] = ~ignored
        is_ignored[index, :count] = ignored
    return Targets(boxes, labels, is_box, is_ignored)


def detection_loss(
    boxes_NA4: Tensor, logits_NAK: Tensor, centers_A2: Tensor, strides_A: Tensor, targets: Targets
) -> dict[str, Tensor]:
    """`total` and its parts, per box that was taken. Float32 whatever comes in."""
    boxes, logits = boxes_NA4.float(), logits_NAK.float()
    with torch.no_grad():
        is_taken_NA, box_index_NA, overlap_NA = assign(
            boxes, logits, centers_A2, strides_A, targets
        )
        is_open_NA = _outside_ignored(centers_A2, targets) | is_taken_NA
    count = is_taken_NA.sum().clamp(min=1)
    wanted = torch.gather(targets.boxes_NG4, 1, box_index_NA[..., None].expand(-1, -1, 4))
    box_loss = (1 - paired_giou(boxes[is_taken_NA], wanted[is_taken_NA])).sum() / count
    labels_NA = torch.gather(targets.labels_NG, 1, box_index_NA)
    soft = functional.one_hot(labels_NA[is_taken_NA], len(CLASSES)) * overlap_NA[is_taken_NA, None]
    class_loss = functional.binary_cross_entropy_with_logits(
        logits[is_taken_NA][:, :-1], soft.float(), reduction="sum"
    )
    object_loss = functional.binary_cross_entropy_with_logits(
        logits[..., -1][is_open_NA], is_taken_NA[is_open_NA].float(), reduction="sum"
    )
    parts = {"box": box_loss, "class": class_loss / count, "object": object_loss / count}
    return {"total": _BOX_WEIGHT * parts["box"] + parts["class"] + parts["object"], **parts}


def assign(
    boxes_NA4: Tensor, logits_NAK: Tensor, centers_A2: Tensor, strides_A: Tensor, targets: Targets
) -> tuple[Tensor, Tensor, Tensor]:
    """Which places are taken, by which box, and how well their own boxes overlap it: all N x A."""
    gt = targets.boxes_NG4
    is_near = _near(centers_A2, strides_A, gt) & targets.is_box_NG[..., None]
    is_inside = _inside(centers_A2, gt) & targets.is_box_NG[..., None]
    is_candidate = is_near | is_inside
    overlap = pairwise_iou(gt, boxes_NA4) * is_candidate
    probability = (logits_NAK[..., :-1].sigmoid() * logits_NAK[..., -1:].sigmoid()).sqrt()
    probability = probability.clamp(_EPS, 1 - _EPS)
    other = -torch.log1p(-probability)  # cost of each class where it is not wanted
    own = -torch.log(probability) - other
    by_label = torch.gather(
        own.transpose(1, 2), 1, targets.labels_NG[..., None].expand(-1, -1, own.shape[1])
    )
    cost = by_label + other.sum(2)[:, None] - _OVERLAP_WEIGHT * torch.log(overlap + 1e-8)
    cost = cost + _FAR * ~(is_near & is_inside) + _FAR**2 * ~is_candidate
    num_best = min(_NUM_BEST, overlap.shape[2])
    wanted_NG = overlap.topk(num_best, dim=2).values.sum(2).int().clamp(min=1)
    best = cost.topk(num_best, dim=2, largest=False)
    rank = torch.arange(num_best, device=cost.device)
    is_chosen = torch.zeros_like(is_candidate)
    is_chosen.scatter_(2, best.indices, rank < wanted_NG[..., None])
    is_chosen &= is_candidate
    # A place that several boxes want goes to the one it costs least.
    box_index_NA = torch.where(is_chosen, cost, torch.inf).argmin(1)
    is_taken_NA = is_chosen.any(1)
    overlap_NA = torch.gather(overlap, 1, box_index_NA[:, None])[:, 0]
    return is_taken_NA, box_index_NA, overlap_NA


def pairwise_iou(first_NG4: Tensor, second_NA4: Tensor) -> Tensor:
    """N x G x A."""
    low = torch.maximum(first_NG4[:, :, None, :2], second_NA4[:, None, :, :2])
    high = torch.minimum(first_NG4[:, :, None, 2:], second_NA4[:, None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    return shared / (_area(first_NG4)[:, :, None] + _area(second_NA4)[:, None] - shared + _EPS)


def paired_giou(first_M4: Tensor, second_M4: Tensor) -> Tensor:
    """Overlap less the share of the hull that neither fills: -1 to 1."""
    low = torch.maximum(first_M4[:, :2], second_M4[:, :2])
    high = torch.minimum(first_M4[:, 2:], second_M4[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    union = _area(first_M4) + _area(second_M4) - shared + _EPS
    hull = (torch.maximum(first_M4[:, 2:], second_M4[:, 2:])
            - torch.minimum(first_M4[:, :2], second_M4[:, :2])).prod(1) + _EPS  # fmt: skip
    return shared / union - (hull - union) / hull


def _near(centers_A2: Tensor, strides_A: Tensor, boxes_NG4: Tensor) -> Tensor:
    middle = (boxes_NG4[..., :2] + boxes_NG4[..., 2:]) / 2
    away = (middle[:, :, None] - centers_A2).abs().amax(-1)
    return away <= _RADIUS * strides_A


def _inside(centers_A2: Tensor, boxes_NG4: Tensor) -> Tensor:
    after = (centers_A2 >= boxes_NG4[:, :, None, :2]).all(-1)
    return after & (centers_A2 < boxes_NG4[:, :, None, 2:]).all(-1)


def _outside_ignored(centers_A2: Tensor, targets: Targets) -> Tensor:
    return ~(_inside(centers_A2, targets.boxes_NG4) & targets.is_ignored_NG[..., None]).any(1)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)
