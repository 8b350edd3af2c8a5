"""How far confidences of shots, text and dollies can be taken at their word: tables, a picture.

    python benchmarks/reliability.py --media MEDIA --picture FILE [--only shots|text|dolly]

Judgements are put into ten bins by confidence. A calibrated confidence is right as often as it
says; the expected calibration error is the mean distance of the two, weighted by the bins' counts.

Shots: TransNetV2 looks at every frame of the labelled videos. A run of frames above 0.02 is one
judgement, its confidence the run's highest value (as `transnet_score` is). It is right where a
labelled cut lies within two frames; runs that touch a labelled gradual transition count neither
way.

Text, found: boxes in the labelled photographs and in others over which a line of words was
rendered: small, faint, blurred, compressed. A box is right where at least half of it lies under
words; illegible ones of the labels count neither way, and words that a photograph without labels
shows by itself count as wrong. Text, read: the rendered lines; right where all letters and digits
are those that were written.

Dolly: zooms rendered from photographs, by the lens or by distance. Right: it was a dolly.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from numpy.typing import NDArray

from modeling.perception.overlays.fonts import FONTS, Font
from modeling.perception.overlays.words import sentence
from pipeline.evaluate.camera_clips import rendered_clips
from pipeline.evaluate.shot_labels import LabelledVideo, labelled_videos, match
from pipeline.evaluate.shot_methods import gather_all
from pipeline.evaluate.text import LABEL_FILE, Mask, box_mask, labelled_areas, labelled_photo
from pipeline.media.config import MediaLimits
from pipeline.media.errors import MediaError
from pipeline.media.image import open_image
from pipeline.score.camera import CameraStage
from pipeline.score.config import ScoreConfig, TextConfig
from pipeline.score.flow import FlowEstimator
from pipeline.score.sampler import Clip
from pipeline.score.text_reader import TextReader, open_reader
from pipeline.split.config import SplitConfig
from pipeline.split.transnet import runs_above
from schemas.scores import CameraScore

_NUM_BINS = 10
_MIN_RUN = 0.02  # lower runs are no judgement of anything
_NUM_LINES = 300
_LINE_HEIGHT_PX = (10, 40)
_NUM_RENDERED = 560  # of all classes; an eighth of them is zooms


@dataclass(frozen=True)
class Judgements:
    """Confidences in [0, 1] and whether each was right."""

    confidence: NDArray[np.float64]
    is_right: NDArray[np.bool_]

    @classmethod
    def of(cls, pairs: list[tuple[float, bool]]) -> "Judgements":
        confidence = np.array([pair[0] for pair in pairs], np.float64)
        return cls(confidence, np.array([pair[1] for pair in pairs], bool))

    def bins(self) -> list[tuple[int, float, float]]:
        """Of each bin that is not empty: count, mean confidence, share that is right."""
        index = np.minimum((self.confidence * _NUM_BINS).astype(int), _NUM_BINS - 1)
        return [
            (
                int((index == b).sum()),
                float(self.confidence[index == b].mean()),
                float(self.is_right[index == b].mean()),
            )
            for b in np.unique(index)
        ]

    def calibration_error(self) -> float:
        weighted = [count * abs(right - says) for count, says, right in self.bins()]
        return sum(weighted) / max(1, len(self.confidence))


def shot_judgements(media: Path) -> Judgements:
    """Takes about a second of one core per 30 frames of the labelled videos."""
    videos = labelled_videos(media)
    everywhere = SplitConfig().model_copy(update={"transnet": "all"})
    pairs = []
    for video, evidence in zip(videos, gather_all(videos, everywhere), strict=True):
        if evidence is not None:
            runs = [
                run for run in runs_above(evidence.cut, _MIN_RUN) if run[1] < evidence.num_frames
            ]
            pairs += list(_judged_runs(runs, video))
    return Judgements.of(pairs)


def _judged_runs(
    runs: list[tuple[int, int, float]], video: LabelledVideo
) -> Iterator[tuple[float, bool]]:
    for start, end, peak in runs:
        is_gradual = any(start <= last and first <= end for first, last in video.gradual)
        if not is_gradual:
            yield min(1.0, peak), match([end], video).num_found > 0


def dolly_judgements(media: Path) -> Judgements:
    """Of rendered zooms that the network calls zooms, by distance or by the lens."""
    config = ScoreConfig()
    flow = FlowEstimator(config.flow)
    stage = CameraStage(config.camera, flow)
    stage.setup()
    pairs = []
    for item in rendered_clips(media, _NUM_RENDERED, only=("zoom_in", "zoom_out")):
        assert isinstance(item.clip, Clip)
        assert item.is_dolly is not None
        (score,) = stage.process([item.clip])
        if isinstance(score, CameraScore) and score.dolly is not None:
            pairs.append((score.dolly, item.is_dolly))
    return Judgements.of(pairs)


def text_judgements(media: Path, reader: TextReader) -> dict[str, Judgements]:
    found = _found_in_labelled(media, reader)
    read: list[tuple[float, bool]] = []
    rng = np.random.default_rng(0)
    photos = list(_photos(media))
    for _ in range(_NUM_LINES):
        picture, line, text = write_line(photos[int(rng.integers(len(photos)))], rng)
        wanted = np.zeros(picture.shape[:2], bool)
        wanted[line] = True
        found += _found(reader, picture, wanted, np.zeros_like(wanted))
        said, confidence = reader.read(np.ascontiguousarray(picture[line]))
        if said:
            read.append((confidence, _letters(said) == _letters(text)))
    return {"text, found": Judgements.of(found), "text, read": Judgements.of(read)}


def _found_in_labelled(media: Path, reader: TextReader) -> list[tuple[float, bool]]:
    found = []
    for entry in json.loads((media / LABEL_FILE).read_text())["data_list"]:
        path = labelled_photo(media, entry)
        if path.exists():
            image = open_image(path.as_uri(), MediaLimits())
            wanted, ignored, _ = labelled_areas(entry["instances"], image.shape[:2])
            found += _found(reader, image, wanted, ignored)
    return found


def _found(
    reader: TextReader, picture_HWC: NDArray[np.uint8], wanted: Mask, ignored: Mask
) -> list[tuple[float, bool]]:
    size_HW = picture_HWC.shape[:2]
    scale = min(1.0, TextConfig().follow_long_side / max(size_HW))
    small = cv2.resize(picture_HWC, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    pairs = []
    for box in reader.find(np.asarray(small, np.uint8)):
        area = box_mask([box], size_HW)
        judged = area & ~ignored
        if judged.sum() >= 0.5 * area.sum() > 0:
            pairs.append((box.confidence, bool(wanted[judged].mean() >= 0.5)))
    return pairs


def _photos(media: Path) -> Iterator[NDArray[np.uint8]]:
    """Every third one that can be read."""
    for path in sorted((media / "photos").glob("*/*.jpg"))[::3]:
        try:
            yield open_image(path.as_uri(), MediaLimits())
        except MediaError as error:
            print(f"left out: {error}", file=sys.stderr)


def write_line(
    photo_HWC: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], tuple[slice, slice], str]:
    """The photograph with one to three words on it, where they are, and what they say."""
    text = sentence(rng, int(rng.integers(1, 4)))
    share_HW = _line_share(text, photo_HWC.shape[:2], rng)
    rooms = [side - own for side, own in zip(photo_HWC.shape[:2], share_HW.shape, strict=True)]
    top, left = (int(rng.integers(room + 1)) for room in rooms)
    line = slice(top, top + share_HW.shape[0]), slice(left, left + share_HW.shape[1])
    picture = photo_HWC.copy()
    under = picture[line].astype(np.float64)
    color = 255.0 if rng.random() < 0.6 else 0.0
    over = under + (rng.uniform(0.15, 1.0) * share_HW)[..., None] * (color - under)
    blurred = cv2.GaussianBlur(over, (0, 0), rng.uniform(0.1, 0.05 * share_HW.shape[0]))
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 90))]
    _, data = cv2.imencode(".jpg", np.clip(blurred, 0, 255).astype(np.uint8)[..., ::-1], quality)
    picture[line] = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1]
    return picture, line, text


def _line_share(
    text: str, room_HW: tuple[int, ...], rng: np.random.Generator
) -> NDArray[np.float64]:
    """The words in [0, 1] with a margin, within the room."""
    fonts = FONTS["train"] + FONTS["held_out"]
    mask = Font(fonts[int(rng.integers(len(fonts)))]).mask(text, 48)
    limits = [0.7 * side / own for side, own in zip(room_HW, mask.shape, strict=True)]
    scale = min(float(rng.integers(*_LINE_HEIGHT_PX)) / mask.shape[0], *limits)
    height, width = (max(4, round(side * scale)) for side in mask.shape)
    margin = max(2, height // 5)
    small = np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA))
    return np.pad(small / 255.0, margin)


def _letters(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def show(name: str, judgements: Judgements) -> None:
    print(f"\n{name}: {len(judgements.confidence)} judgements, "
          f"expected calibration error {judgements.calibration_error():.3f}")  # fmt: skip
    print("| confidence, mean | right | judgements |\n|---|---|---|")
    for count, says, right in judgements.bins():
        print(f"| {says:.3f} | {right:.3f} | {count} |")


def draw(by_name: Mapping[str, Judgements], path: Path) -> None:
    """Share of right judgements over confidence, one panel each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(by_name), figsize=(3.6 * len(by_name), 3.6))
    for panel, (name, judgements) in zip(np.atleast_1d(panels), by_name.items(), strict=True):
        draw_panel(panel, name, judgements)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def draw_panel(panel: Any, name: str, judgements: Judgements) -> None:
    """Into one of matplotlib's axes."""
    count, says, right = np.array(judgements.bins()).T
    panel.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    panel.plot(says, right, linewidth=1)
    panel.scatter(says, right, s=12 + 60 * np.sqrt(count / count.sum()))
    panel.set(title=f"{name} ({int(count.sum())})", xlabel="confidence", ylabel="share right")
    panel.set(xlim=(0, 1.02), ylim=(-0.02, 1.02))


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Reliability of confidences of shots, text, dolly."
    )
    parser.add_argument("--media", type=Path, required=True)
    parser.add_argument("--picture", type=Path, required=True)
    parser.add_argument("--only", choices=["shots", "text", "dolly"])
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    found: dict[str, Judgements] = {}
    only = arguments.only
    if only in (None, "text"):
        found |= text_judgements(arguments.media, open_reader("rapidocr"))
    if only in (None, "shots"):
        found["shots, TransNetV2"] = shot_judgements(arguments.media)
    if only in (None, "dolly"):
        found["camera, dolly"] = dolly_judgements(arguments.media)
    for name, judgements in found.items():
        show(name, judgements)
    draw(found, arguments.picture)


if __name__ == "__main__":
    main()
