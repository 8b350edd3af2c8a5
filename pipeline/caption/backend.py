"""What a captioner is: something that turns frames of clips into the seven descriptions."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.caption import StructuredCaption
from schemas.status import Failure


@dataclass(frozen=True, slots=True)
class CaptionRequest:
    """One clip for a captioner: frames of its window, cut to its clean crop.

    `frames_sha256` names exactly these pixels, so that an endpoint's answers can be kept and
    asked for again. Frames are RGB; none where the backend wants none.
    """

    clip_id: str
    frames_THWC: NDArray[np.uint8]
    frames_sha256: str


class CaptionBackend(Protocol):
    """`num_frames` evenly spaced frames are decoded for each request; 0: no media is opened."""

    @property
    def name(self) -> str:
        """What `StructuredCaption.captioner` says: backend, model and its version."""

    @property
    def num_frames(self) -> int: ...

    def setup(self) -> None:
        """Load weights or open the endpoint. Once per actor, never on the driver."""

    def describe(self, requests: Sequence[CaptionRequest]) -> Sequence[StructuredCaption | Failure]:
        """One answer per request, in order. Fills the seven descriptions, nothing else."""


def request_for(clip_id: str, frames_THWC: NDArray[np.uint8]) -> CaptionRequest:
    digest = hashlib.sha256(str(frames_THWC.shape).encode())
    digest.update(np.ascontiguousarray(frames_THWC).data)
    return CaptionRequest(clip_id, frames_THWC, digest.hexdigest())
