"""The overlay detector's outputs, agreed between the program that exports and the one that runs it.

`boxes` N x K x 4: left, top, right, bottom in shares of the picture; `scores` N x K in [0, 1];
`classes` N x K: indices into OVERLAY_KINDS. Boxes may overlap: the pipeline keeps the best of each
class. Metadata `thresholds`: a JSON object, per kind the score from which on a box counts; kinds
that it does not name count from the configured confidence on.
"""

from typing import get_args

from schemas.scores import OverlayKind

OVERLAY_OUTPUTS = ("boxes", "scores", "classes")
OVERLAY_THRESHOLDS_KEY = "thresholds"
OVERLAY_KINDS: tuple[OverlayKind, ...] = get_args(OverlayKind)
