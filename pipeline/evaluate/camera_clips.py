"""Clips with a known camera movement: rendered from photographs, and labelled real ones."""

import itertools
import json
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.evaluate.camera_paths import draw_path
from pipeline.evaluate.camera_scenes import draw_scene, render_scene
from pipeline.evaluate.duplicate_clips import MEDIA_LIST
from pipeline.evaluate.motion import PHOTO_FOLDER, encoded_clip
from pipeline.evaluate.shot_labels import CUTS_FILE
from pipeline.media.config import MediaLimits
from pipeline.media.image import open_image
from pipeline.score.config import ScoreConfig
from pipeline.score.sampler import Clip, sample_clips
from schemas.camera_network import CAMERA_CLASSES
from schemas.clip import ClipRow
from schemas.scores import CameraMovement
from schemas.status import Failure

LABEL_FILE = "gt/camera_motion.json"
_SIZE_HW = (256, 456)
_FPS = (24.0, 30.0, 25.0, 12.0)
_LENGTHS_S = (1.2, 4.0)
_MIXED_EVERY = 8
_MIN_SIDE_PX = 100
_MIN_LENGTH_S = 1.0
_NO_CAMERA_TAGS = {"testcard", "synthetic"}
_TRAINED_ON = "videos/intel_iot/"  # still cameras that the network has learned from


@dataclass(frozen=True, slots=True)
class Labelled:
    """`label` is one of CAMERA_CLASSES or MOVING; None for mixed motion."""

    name: str
    label: str | None
    clip: Clip | Failure
    is_dolly: bool | None = None  # of a rendered zoom: by distance, not by the lens


MOVING = "moving"


def rendered_clips(
    media: Path, num_clips: int, only: Collection[CameraMovement] | None = None
) -> Iterator[Labelled]:
    """Every class in turn, every eighth clip mixed, as layered scenes of the photographs.

    The renderer is the one that the network learned from; the photographs are others, and the
    clips go through a codec at full rate and the sampler like any file. `only`: clips of other
    classes are left out; the rest stays as it is.
    """
    paths = sorted((media / PHOTO_FOLDER).iterdir())
    pictures = [open_image(path.as_uri(), MediaLimits()) for path in paths]
    height, width = _SIZE_HW
    diagonal_px = float(np.hypot(height, width))
    with tempfile.TemporaryDirectory() as folder:
        for index in range(num_clips):
            rng = np.random.default_rng([2026, index])
            label: CameraMovement | None = CAMERA_CLASSES[index % len(CAMERA_CLASSES)]
            if index % _MIXED_EVERY == _MIXED_EVERY - 1:
                label = None
            if only is not None and label not in only:
                continue
            fps = _FPS[index // len(CAMERA_CLASSES) % len(_FPS)]
            duration_s = float(np.exp(rng.uniform(*np.log(_LENGTHS_S))))
            times_s = np.arange(round(duration_s * fps)) / fps
            view_deg = np.exp(rng.uniform(np.log(20), np.log(90)))
            focal = width / diagonal_px / 2 / float(np.tan(np.radians(view_deg / 2)))
            background = float(np.exp(rng.uniform(np.log(2.0), np.log(8.0)))) ** -0.5
            path = draw_path(
                rng, label, times_s, focal=focal, background=background, sampled_every_s=0.125
            )
            scene = draw_scene(
                rng, pictures, focal=focal, diagonal_px=diagonal_px, background=background,
                path=path, is_flat=False,
            )  # fmt: skip
            frames = list(render_scene(scene, path, size_HW=_SIZE_HW))
            clip = encoded_clip(Path(folder) / "clip.mp4", frames, fps)
            yield Labelled(f"rendered {index}", label, clip, path.is_dolly)


def real_clips(media: Path) -> Iterator[Labelled]:
    """The longest stretch without a cut of every labelled video that a camera has taken.

    Left out: test patterns, clips under a second or 100 px, and what the network learned from.
    """
    labels = json.loads((media / LABEL_FILE).read_text())
    cuts = json.loads((media / CUTS_FILE).read_text())
    with (media / MEDIA_LIST).open() as file:
        entries = {str(e["name"]): e for e in map(json.loads, file)}
    for name, label in sorted(labels.items()):
        entry = entries[name]
        fps, side = entry.get("fps") or 0.0, min(entry.get("width") or 0, entry.get("height") or 0)
        num_frames = int(entry.get("frames") or 0)
        has_no_camera = _NO_CAMERA_TAGS & set(entry["tags"]) or name.startswith(_TRAINED_ON)
        if has_no_camera or side < _MIN_SIDE_PX:
            continue
        bounds = [0, *((cuts.get(name) or {}).get("cuts") or ()), num_frames]
        start, end = max(itertools.pairwise(bounds), key=lambda b: b[1] - b[0])
        if not fps or (end - start) / fps < _MIN_LENGTH_S:
            continue
        row = ClipRow(
            clip_id="0" * 32,
            source_uri=(media / name).absolute().as_uri(),
            source_sha256="0" * 64,
            media_kind="video",
            start_frame=start,
            end_frame=end,
            start_s=start / fps,
            end_s=end / fps,
            clear_frame=start,
            clear_s=start / fps,
            fps=fps,
            width=entry["width"],
            height=entry["height"],
        )
        (clip,) = sample_clips([row], ScoreConfig().sampling, MediaLimits())
        yield Labelled(name, _real_label(label), clip)


def _real_label(label: str) -> str:
    kind = label.split()[0]
    return {"static": "static_shot", "handheld": "handheld_shot"}.get(kind, MOVING)
