"""What a captioner is: something that looks at windows of clips and answers in JSON."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.caption.answer import Words
from schemas.base import StrictModel
from schemas.status import Failure

_TAG_DIGITS = 16


class CaptionerError(Exception):
    """The captioner cannot work, whatever the clip: one line with the place and the remedy."""


@dataclass(frozen=True, slots=True)
class WindowRequest:
    """One window of one clip: pictures of it, cut to its clean crop, with their times.

    `tag` names the clip and exactly these pictures. Every answer repeats it.
    """

    clip_id: str
    place: int  # 0 for the first window of the clip
    times_s: tuple[float, ...]
    frames_THWC: NDArray[np.uint8]  # RGB
    frames_sha256: str

    @property
    def tag(self) -> str:
        text = f"{self.clip_id}:{self.place}:{self.frames_sha256}"
        return hashlib.sha256(text.encode()).hexdigest()[:_TAG_DIGITS]


class Usage(StrictModel):
    """What the answers to one window cost, refused ones included. None: the server does not say."""

    num_answers: int = 0
    prompt_tokens: int | None = 0
    answer_tokens: int | None = 0
    seconds: float = 0.0  # from the first request to the last answer

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            num_answers=self.num_answers + other.num_answers,
            prompt_tokens=_sum(self.prompt_tokens, other.prompt_tokens),
            answer_tokens=_sum(self.answer_tokens, other.answer_tokens),
            seconds=round(self.seconds + other.seconds, 3),
        )


@dataclass(frozen=True, slots=True)
class Described:
    """What became of one window. `constraint` names what made the answer JSON, `seed` the try."""

    request: WindowRequest
    result: Words | Failure
    usage: Usage
    constraint: str
    seed: int


class CaptionBackend(Protocol):
    """Lives in one worker."""

    def setup(self) -> None:
        """Load weights or reach the endpoint. Raises CaptionerError."""

    def describe(self, requests: Iterable[WindowRequest]) -> Iterator[Described]:
        """One result per request, in any order. Takes requests as it has room for them.

        Raises CaptionerError when the captioner is gone; what was yielded before holds.
        """

    def close(self) -> None:
        """Free what `setup` took."""


def window_request(
    clip_id: str, place: int, times_s: tuple[float, ...], frames_THWC: NDArray[np.uint8]
) -> WindowRequest:
    digest = hashlib.sha256(str((frames_THWC.shape, times_s)).encode())
    digest.update(np.ascontiguousarray(frames_THWC).data)
    return WindowRequest(clip_id, place, times_s, frames_THWC, digest.hexdigest())


def try_seed(seed: int, tag: str, attempt: int) -> int:
    """The seed of one try: 31 bits, different for each request and each try of it."""
    digest = hashlib.sha256(f"{seed}:{tag}:{attempt}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
