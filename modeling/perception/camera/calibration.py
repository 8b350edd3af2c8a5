"""Confidence that means what it says: a temperature, the error of it, and thresholds per class."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from schemas.camera_network import CAMERA_CLASSES

FloatArray = NDArray[np.float64]
_NUM_BINS = 15
_MIN_NAMED = 5  # fewer clips say nothing about a precision


def fit_temperature(logits_NK: Tensor, label_N: Tensor) -> float:
    """What divides the logits at the least cross entropy, between 0.2 and 5."""
    candidates = np.exp(np.linspace(np.log(0.2), np.log(5), 161))
    losses = [float(functional.cross_entropy(logits_NK / t, label_N)) for t in candidates]
    return float(candidates[int(np.argmin(losses))])


def calibration_error(probability_NK: FloatArray, label_N: NDArray[np.int64]) -> float:
    """Expected calibration error over 15 equal bins of the largest probability."""
    confidence_N = probability_NK.max(axis=1)
    hit_N = probability_NK.argmax(axis=1) == label_N
    bin_N = np.minimum((confidence_N * _NUM_BINS).astype(int), _NUM_BINS - 1)
    gaps = [
        (bin_N == b).mean() * abs(confidence_N[bin_N == b].mean() - hit_N[bin_N == b].mean())
        for b in np.unique(bin_N)
    ]
    return float(sum(gaps))


def class_thresholds(
    probability_NK: FloatArray, label_N: NDArray[np.int64], *, precision: float
) -> list[float]:
    """Per class the lowest confidence from which on its clips are right so often; 1 for never."""
    thresholds = []
    named_N = probability_NK.argmax(axis=1)
    for index in range(len(CAMERA_CLASSES)):
        chosen = named_N == index
        confidence, hit = probability_NK[chosen, index], label_N[chosen] == index
        order = np.argsort(-confidence)
        shares = np.cumsum(hit[order]) / np.arange(1, len(order) + 1)
        good = np.flatnonzero(shares >= precision)
        good = good[good >= _MIN_NAMED - 1]
        thresholds.append(float(confidence[order][good[-1]]) if len(good) else 1.0)
    return thresholds


def softmax(logits_NK: Tensor, temperature: float) -> FloatArray:
    return torch.softmax(logits_NK / temperature, 1).double().numpy()
