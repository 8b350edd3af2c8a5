"""What finds shot boundaries: the split step, TransNetV2 alone, PySceneDetect's detectors.

All get their pictures from the same decoder, so frame numbers mean the same. A file of which
nothing decodes gives nobody a cut.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scenedetect import (
    AdaptiveDetector,
    ContentDetector,
    FrameTimecode,
    SceneDetector,
    SceneManager,
)

from pipeline.evaluate.shot_labels import LabelledVideo
from pipeline.media.errors import MediaError
from pipeline.media.video import open_video
from pipeline.split.boundaries import find_boundaries
from pipeline.split.config import EvidenceConfig, SplitConfig
from pipeline.split.evidence import Evidence, gather_evidence
from pipeline.split.stream import SmallPictureStream
from pipeline.split.transnet import runs_above
from pipeline.split.worker import load_transnet

_PEER_SHORT_SIDE_PX = 144  # PySceneDetect reduces a 16:9 picture to 256 x 144 by itself
_TRANSNET_THRESHOLD = 0.5
logging.getLogger("pyscenedetect").setLevel(logging.WARNING)  # its import asks for every file


def gather_all(videos: Sequence[LabelledVideo], config: SplitConfig) -> list[Evidence | None]:
    """As the split step sees each file. Raises WeightsError without TransNetV2's weights."""
    transnet = load_transnet(config)
    gathered: list[Evidence | None] = []
    for video in videos:
        try:
            with open_video(
                video.path.absolute().as_uri(),
                config.limits,
                skip_loop_filter=config.skip_loop_filter,
            ) as reader:
                gathered.append(gather_evidence(reader, config, transnet))
        except MediaError:
            gathered.append(None)
    return gathered


def without_transnet(evidence: Evidence | None) -> Evidence | None:
    """The same evidence as if the second witness had looked nowhere."""
    if evidence is None:
        return None
    unseen = np.full(evidence.num_frames, np.nan, np.float32)
    return replace(evidence, cut=unseen, transition=unseen)


def split_cuts(evidence: Evidence | None, config: EvidenceConfig) -> list[int]:
    """The split step's decisions."""
    if evidence is None:
        return []
    return [
        boundary.frame
        for boundary in find_boundaries(evidence, config)
        if boundary.rejected is None and 0 < boundary.frame < evidence.num_frames
    ]


def transnet_cuts(evidence: Evidence | None) -> list[int]:
    """TransNetV2's own answer, where it looked at every frame."""
    if evidence is None:
        return []
    runs = runs_above(evidence.cut, _TRANSNET_THRESHOLD)
    return [end for _, end, _ in runs if end < evidence.num_frames]


def pyscenedetect_cuts(video: LabelledVideo, config: SplitConfig) -> dict[str, list[int]]:
    """By detector, as they are and with the shortest scene that finds quick cuts."""
    recorders = {
        "PySceneDetect Adaptive": _Recorder(AdaptiveDetector()),
        "PySceneDetect Content": _Recorder(ContentDetector()),
        "PySceneDetect Adaptive, min_scene_len=5": _Recorder(AdaptiveDetector(min_scene_len=5)),
        "PySceneDetect Content, min_scene_len=5": _Recorder(ContentDetector(min_scene_len=5)),
    }
    manager = SceneManager()
    manager.auto_downscale = False
    for recorder in recorders.values():
        manager.add_detector(recorder)
    try:
        with open_video(video.path.absolute().as_uri(), config.limits) as reader:
            manager.detect_scenes(SmallPictureStream(reader, short_side_px=_PEER_SHORT_SIDE_PX))
    except MediaError:
        pass  # nothing decodes: no cuts
    return {name: recorder.frames for name, recorder in recorders.items()}


class _Recorder(SceneDetector):  # type: ignore[misc]
    """Keeps the cuts of one detector apart from those of the others in the same run."""

    def __init__(self, detector: SceneDetector) -> None:
        super().__init__()
        self.detector = detector
        self.frames: list[int] = []

    def process_frame(
        self, timecode: FrameTimecode, frame_img: NDArray[np.uint8]
    ) -> list[FrameTimecode]:
        cuts = self.detector.process_frame(timecode, frame_img)
        self.frames.extend(cut.frame_num for cut in cuts)
        return []

    def post_process(self, timecode: FrameTimecode) -> list[FrameTimecode]:
        self.frames.extend(cut.frame_num for cut in self.detector.post_process(timecode))
        return []
