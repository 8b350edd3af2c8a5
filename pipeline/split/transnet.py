"""TransNetV2 as a witness beside PySceneDetect's detectors: it looks where it is asked to.

The network sees 100 frames at a time and is trusted for the middle 50 of them. A look costs about
a second of one core, so by default it is spent on doubtful places only, and in threads of their own
while the decoder goes on: nothing waits for what it tells before the end. Memory does not grow with
the source but for two numbers per frame.
"""

from array import array
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scenedetect import FrameTimecode, SceneDetector

from pipeline.onnx_model import OnnxModel
from pipeline.split.config import Lookout

_TRUSTED_FIRST = 25  # of a window of 100; the outer quarters lack context
_TRUSTED_END = 75
_NUM_THREADS = 2  # of windows side by side; each look itself has one
_MAX_PENDING = 4  # windows that wait for the network; then the decoder waits
_PLACE_IN_WINDOW = 40  # of the frame in doubt: what follows it matters more than what precedes it


class TransNetWitness(SceneDetector):  # type: ignore[misc]
    """Per frame `cut` and `transition` probabilities, NaN where it did not look.

    `find_doubt(index)` names a frame at or before `index` that is in doubt and was not named
    before, or None. It is asked once per frame.
    """

    def __init__(
        self, model: OnnxModel, lookout: Lookout, find_doubt: Callable[[int], int | None]
    ) -> None:
        super().__init__()
        card = model.card
        assert card.num_frames is not None
        self.cut = array("f")
        self.transition = array("f")
        self.num_looks = 0
        self._model = model
        self._size_WH = (card.width, card.height)
        self._window = card.num_frames
        self._lookout = lookout
        self._find_doubt = find_doubt
        self._recent: deque[NDArray[np.uint8]] = deque(maxlen=self._window)
        self._planned: deque[int] = deque()  # first frames of windows to look at
        self._trusted_until = 0  # end of what the planned windows tell
        self._looks: deque[tuple[int, Future[dict[str, NDArray[Any]]]]] = deque()
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="transnet")

    def process_frame(
        self, timecode: FrameTimecode, frame_img: NDArray[np.uint8]
    ) -> list[FrameTimecode]:
        index = len(self.cut)
        small = cv2.resize(frame_img, self._size_WH, interpolation=cv2.INTER_AREA)
        self._recent.append(np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB), np.uint8))
        self.cut.append(np.nan)
        self.transition.append(np.nan)
        self._plan(index)
        while self._planned and self._planned[0] + self._window <= index + 1:
            self._look(self._planned.popleft())
        return []

    def post_process(self, timecode: FrameTimecode) -> list[FrameTimecode]:
        while self._planned:
            self._look(self._planned.popleft())
        self._take(0)
        self._threads.shutdown()
        return []

    def _plan(self, index: int) -> None:
        if self._lookout == "all":
            if index == self._trusted_until:
                self._planned.append(index - _TRUSTED_FIRST)
                self._trusted_until = index + _TRUSTED_END - _TRUSTED_FIRST
            return
        doubt = self._find_doubt(index)
        if doubt is not None and doubt >= self._trusted_until:
            first = doubt - _PLACE_IN_WINDOW
            self._planned.append(first)
            self._trusted_until = first + _TRUSTED_END

    def _look(self, first: int) -> None:
        """Frames before the start and after the end are repeats of the outermost ones."""
        num_frames = len(self.cut)
        oldest = num_frames - len(self._recent)
        wanted = np.clip(np.arange(first, first + self._window), oldest, num_frames - 1)
        frames_THWC = np.stack([self._recent[index - oldest] for index in wanted])
        look = self._threads.submit(self._model.run, frames_THWC[np.newaxis])
        self._looks.append((first, look))
        self.num_looks += 1
        self._take(_MAX_PENDING)

    def _take(self, max_pending: int) -> None:
        """Write down what the oldest looks told, until at most `max_pending` are left."""
        while len(self._looks) > max_pending:
            first, look = self._looks.popleft()
            told = look.result()
            for offset in range(_TRUSTED_FIRST, _TRUSTED_END):
                index = first + offset
                if 0 <= index < len(self.cut) and np.isnan(self.cut[index]):
                    self.cut[index] = told["cut"][0, offset]
                    self.transition[index] = told["transition"][0, offset]


def runs_above(cut: NDArray[np.float32], min_cut: float) -> list[tuple[int, int, float]]:
    """(start, end, highest value) of each run of frames above `min_cut`; NaN is below.

    The network marks the frames in the middle of a transition, for a cut the last one before it,
    so the frame at `end` begins the new shot.
    """
    above = np.concatenate([[False], np.nan_to_num(cut) > min_cut, [False]])
    edges = np.flatnonzero(above[1:] != above[:-1])
    return [
        (int(start), int(end), float(cut[start:end].max()))
        for start, end in zip(edges[::2], edges[1::2], strict=True)
    ]
