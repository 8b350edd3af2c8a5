"""One decode of a source, and everything the witnesses wrote down about its frames."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scenedetect import SceneManager

from pipeline.media.errors import MediaError
from pipeline.media.video import VideoReader
from pipeline.onnx_model import OnnxModel
from pipeline.split.config import SplitConfig
from pipeline.split.stream import SmallPictureStream
from pipeline.split.transnet import TransNetWitness
from pipeline.split.witnesses import PictureWitness, ScoredAdaptiveDetector, SharedContentDetector


@dataclass(frozen=True, slots=True)
class Evidence:
    """One value per frame, but for `mixed` and `proposals`. NaN: the witness did not look there."""

    time_s: NDArray[np.float64]
    sharpness: NDArray[np.float32]
    content: NDArray[np.float32]
    likeness: NDArray[np.float32]
    luma_mean: NDArray[np.float32]
    luma_sd: NDArray[np.float32]
    cut: NDArray[np.float32]  # TransNetV2
    transition: NDArray[np.float32]  # TransNetV2
    proposals: tuple[int, ...]  # frames at which a detector of PySceneDetect cuts
    num_looks: int  # windows that TransNetV2 was shown
    error: MediaError | None  # what ended the source early
    mixed: tuple[tuple[int, int], ...]  # windows in which one picture is mixed with another

    @property
    def num_frames(self) -> int:
        return len(self.time_s)


def gather_evidence(
    reader: VideoReader, config: SplitConfig, transnet: OnnxModel | None
) -> Evidence:
    """Decode the whole source once. Memory grows by some 40 bytes per frame."""
    stream = SmallPictureStream(reader, short_side_px=config.short_side_px)
    scored = ScoredAdaptiveDetector(config.evidence)
    picture = PictureWitness(config.evidence, scored)
    manager = SceneManager()
    manager.auto_downscale = False
    # In this order: each of the later ones reads what the first wrote about the same frame.
    manager.add_detector(scored)
    manager.add_detector(SharedContentDetector(scored))
    manager.add_detector(picture)
    second = None
    if transnet is not None and config.transnet != "off":
        second = TransNetWitness(transnet, config.transnet, picture.find_doubt)
        manager.add_detector(second)
    manager.detect_scenes(stream)
    num_frames = len(stream.time_s)
    unseen = np.full(num_frames, np.nan, np.float32)
    return Evidence(
        time_s=np.array(stream.time_s),
        sharpness=np.array(stream.sharpness),
        content=np.array(scored.content),
        likeness=np.array(picture.likeness),
        luma_mean=np.array(picture.luma_mean),
        luma_sd=np.array(picture.luma_sd),
        cut=np.array(second.cut) if second else unseen,
        transition=np.array(second.transition) if second else unseen,
        proposals=tuple(cut.frame_num for cut in manager.get_cut_list(show_warning=False)),
        num_looks=second.num_looks if second else 0,
        error=stream.error,
        mixed=tuple(picture.mixed),
    )
