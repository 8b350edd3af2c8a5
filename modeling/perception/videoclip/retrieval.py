"""How often the nearest video of a text, and the nearest text of a video, is the right one."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from schemas.base import StrictModel


class Retrieval(StrictModel):
    """Shares of queries. Samples with one text are all right answers to it.

    `chance`: what a random order would reach at 1.
    """

    num_samples: int
    chance: float
    text_to_video_at_1: float
    text_to_video_at_5: float
    video_to_text_at_1: float
    video_to_text_at_5: float


def retrieval(video_ND: Tensor, text_ND: Tensor, texts: Sequence[str]) -> Retrieval:
    """Over all pairs of the samples. Raises ValueError without samples."""
    if not texts:
        raise ValueError("retrieval needs at least one sample")
    similarity_VS = (video_ND @ text_ND.T).double().cpu().numpy()
    text_id_N = np.unique(np.asarray(texts), return_inverse=True)[1]
    is_right_VS = text_id_N[:, None] == text_id_N[None]

    def share_at(scores: np.ndarray, count: int) -> float:
        best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        return float(np.take_along_axis(is_right_VS, best, axis=1).any(axis=1).mean())

    return Retrieval(
        num_samples=len(texts),
        chance=float(is_right_VS.mean()),
        text_to_video_at_1=share_at(similarity_VS.T, 1),
        text_to_video_at_5=share_at(similarity_VS.T, 5),
        video_to_text_at_1=share_at(similarity_VS, 1),
        video_to_text_at_5=share_at(similarity_VS, 5),
    )
