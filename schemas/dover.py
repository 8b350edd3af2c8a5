"""What an exported DOVER network is shown, and what it says: the contract of both sides.

A network of kind `quality` with the outputs `technical` and `aesthetic` takes 128 pictures of
224 x 224 as `frames`: three runs of 32 stitched fragments, then 32 whole pictures. The outputs,
one number per clip each, have no bounds; `fuse` makes one of them in [0, 1].
"""

import math
from typing import Literal

TECHNICAL_OUTPUT = "technical"
AESTHETIC_OUTPUT = "aesthetic"
NUM_RUNS = 3
RUN_FRAMES = 32
NUM_WHOLE_FRAMES = 32
NUM_VIEWS = NUM_RUNS * RUN_FRAMES + NUM_WHOLE_FRAMES
SIDE_PX = 224

Fusion = Literal["published", "matched"]
_TECHNICAL_WEIGHT = 0.6104
# Mean and spread of each branch over LIVE-VQC.
_AESTHETIC = (0.1107, 0.07355)
_TECHNICAL = (-0.08285, 0.03774)


def fuse(technical: float, aesthetic: float, fusion: Fusion) -> float:
    """In [0, 1], higher is better.

    `published` is what the released program computes: it standardizes each branch by the other
    one's statistics, and thresholds in use elsewhere belong to it. `matched` uses each branch's
    own. They order clips nearly alike and differ in level.
    """
    of_technical, of_aesthetic = _TECHNICAL, _AESTHETIC
    if fusion == "published":
        of_technical, of_aesthetic = _AESTHETIC, _TECHNICAL
    x = _TECHNICAL_WEIGHT * _standardized(technical, of_technical)
    x += (1 - _TECHNICAL_WEIGHT) * _standardized(aesthetic, of_aesthetic)
    return 0.5 * (1 + math.tanh(x / 2))  # the logistic function without overflow


def _standardized(value: float, statistics: tuple[float, float]) -> float:
    mean, spread = statistics
    return (value - mean) / spread
