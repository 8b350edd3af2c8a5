"""Clips and pictures as the compared methods see them, and which pairs each calls duplicates."""

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.corpus.config import DuplicateConfig
from pipeline.embed.worker import Embedding, embed
from pipeline.evaluate.figures import OURS, Figure, share_figure
from pipeline.evaluate.perturbations import resize
from pipeline.onnx_model import OnnxModel

PART = "duplicates"
MEAN = "mean of image features"
PEER = "perceptual hash"
METHODS = (OURS, MEAN, PEER)
_MAX_HASH_DISTANCE = 10  # of 64 bits
_MIN_MEAN_COSINE, _MIN_MEAN_COSINE_SAME_SOURCE = 0.9, 0.99  # chosen on this media
Images = NDArray[np.uint8]
# Whether each of METHODS calls a pair duplicates.
Decisions = tuple[bool, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """A clip as the methods see it."""

    embedding: Embedding
    hash_64: NDArray[np.bool_]

    def matches(
        self, other: "Look", config: DuplicateConfig, *, same_source: bool = False
    ) -> Decisions:
        ours, mean = config.min_similarity, _MIN_MEAN_COSINE
        if same_source:
            ours = max(ours, config.min_similarity_same_source)
            mean = _MIN_MEAN_COSINE_SAME_SOURCE
        distance = int((self.hash_64 != other.hash_64).sum())
        return (
            float(self.embedding.for_copies @ other.embedding.for_copies) >= ours,
            float(self.embedding.semantic_D @ other.embedding.semantic_D) >= mean,
            distance <= _MAX_HASH_DISTANCE,
        )


@dataclass(slots=True)
class Tally:
    """Which pairs each method called duplicates."""

    pairs: list[Decisions] = field(default_factory=list)

    def figures(self, measure: str, counted: str = "pairs") -> list[Figure]:
        """Empty where there is nothing to count, as in a folder without labelled groups."""
        if not self.pairs:
            return []
        return [
            share_figure(PART, measure, method, [pair[index] for pair in self.pairs], counted)
            for index, method in enumerate(METHODS)
        ]


def look_at(network: OnnxModel, frames_THWC: Images) -> Look:
    """Frames of any size, stretched to the network's."""
    sized = resize(frames_THWC, (network.card.height, network.card.width))
    middle = frames_THWC[len(frames_THWC) // 2]
    return Look(embed(network, sized), perceptual_hash(middle))


def perceptual_hash(image_HWC: Images) -> NDArray[np.bool_]:
    """64 bits: the lowest 8 x 8 DCT coefficients of 32 x 32 luma against their median."""
    luma = cv2.cvtColor(image_HWC, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(luma, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = np.asarray(cv2.dct(small))[:8, :8].ravel()
    return np.asarray(low > np.median(low[1:]), bool)


def luma_sd(frames_THWC: Images) -> float:
    """Of the most textured frame, as the embed pass measures it."""
    return max(float(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY).std()) for f in frames_THWC)
