"""Blank stretches, black or white, and the fades that lead into and out of them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.split.config import EvidenceConfig
from pipeline.split.evidence import Evidence

_MAX_BLACK = 20.0  # mean 8-bit level of a blank black frame
_MAX_NEARLY_BLACK = 3.0  # with any contrast: at most 1.2 % of the pixels are lit, as by a title
_MIN_WHITE = 235.0
_MIN_BLANK_FRAMES = 2
_MIN_GROWTH = 1.02  # of the contrast over two frames, while a picture fades in


class Fade(NamedTuple):
    """A fade out, a blank stretch and a fade in; either fade may be missing. Frame indices."""

    first: int
    first_blank: int
    last: int


def find_fades(evidence: Evidence, config: EvidenceConfig) -> list[Fade]:
    """In order; two that meet are one."""
    is_black_or_white = (evidence.luma_mean < _MAX_BLACK) | (evidence.luma_mean > _MIN_WHITE)
    blank = (evidence.luma_sd < config.min_contrast) & is_black_or_white
    blank |= evidence.luma_mean < _MAX_NEARLY_BLACK
    padded = np.concatenate([[False], blank, [False]])
    edges = np.flatnonzero(padded[1:] != padded[:-1])
    found: list[Fade] = []
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if end - start < _MIN_BLANK_FRAMES:
            continue
        last = _fade_end(evidence, int(end) - 1, config, step=1)
        first = _fade_end(evidence, int(start), config, step=-1)
        if found and first <= found[-1][2] + 1:
            first, start, _ = found.pop()
        found.append(Fade(first, int(start), last))
    return found


def _fade_end(evidence: Evidence, frame: int, config: EvidenceConfig, *, step: int) -> int:
    """The last frame, away from the blank ones, up to which the contrast keeps growing."""
    contrast: NDArray[np.float32] = evidence.luma_sd
    start_s = evidence.time_s[frame]
    end = frame
    while 0 <= end + 2 * step < evidence.num_frames:
        is_near = abs(evidence.time_s[end + step] - start_s) <= config.max_fade_s
        grows = contrast[end + 2 * step] > contrast[end] * _MIN_GROWTH
        is_abrupt = evidence.content[max(end, end + step)] >= config.full_content
        if not is_near or not grows or is_abrupt:
            break
        end += step
    return end
