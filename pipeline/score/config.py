"""Every knob of the scorers, with its unit and limit. Thresholds of the tiers are not here."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.score.dover_frames import Sampling
from schemas.base import StrictModel
from schemas.dover import Fusion
from schemas.scores import OverlayKind

GEOMETRY = "geometry"
WeightsName = Annotated[str, Field(min_length=1)]  # a shipped name or path:FILE
DetectorLayout = Literal["yolo", "yolox", "yolox_decoded", "rtdetr"]  # foreign_detector.py


class SamplingConfig(StrictModel):
    """What one decode of the sample window keeps of it."""

    flow_dt_s: Annotated[float, Field(gt=0, le=1)] = 0.125
    flow_short_side: Annotated[int, Field(ge=64, le=720)] = 256
    num_key_frames: Annotated[int, Field(ge=2, le=24)] = 8
    key_long_side: Annotated[int, Field(ge=224, le=1920)] = 960
    num_native_frames: Annotated[int, Field(ge=1, le=8)] = 5
    max_native_bytes: Annotated[int, Field(ge=1 << 20)] = 48 << 20  # of the native frames together


class FlowConfig(StrictModel):
    """Optical flow. `model`: a network of kind `flow` instead of OpenCV's DIS."""

    finest_scale: Annotated[int, Field(ge=0, le=3)] = 1  # flow is found at 1/2^n of the size
    refinement_rounds: Annotated[int, Field(ge=0, le=25)] = 0
    patch_stride: Annotated[int, Field(ge=1, le=8)] = 6  # patches are 8 pixels wide; 4 costs double
    model: WeightsName | None = None
    cell_px: Annotated[int, Field(ge=4, le=64)] = 16
    min_texture: Annotated[float, Field(ge=0)] = 1.5  # mean gradient of a cell, 8-bit levels/px
    inlier_px: Annotated[float, Field(gt=0)] = 0.4


class CameraConfig(StrictModel):
    """`model`: a network of kind `camera_movement`, or `geometry` for rules without one.

    `naming`: `recipe` has both families in four directions, pan = translation, tilt = rotation;
    `film` calls all sideways motion pan and all vertical motion tilt. What moves slower than
    `unseen_speed` (0: nothing) and shakes no more than `unseen_jitter` is static whatever the
    network says: by default below what it was taught to call moving, and up to what it was taught
    to call static. The other values are where the classes of the rules begin. All speeds and
    shakes are in percent of the diagonal.
    """

    model: WeightsName = "camera"
    naming: Literal["recipe", "film"] = "recipe"
    unseen_speed: Annotated[float, Field(ge=0)] = 0.75  # percent/s
    unseen_jitter: Annotated[float, Field(ge=0)] = 0.05
    static_speed: Annotated[float, Field(gt=0)] = 0.3  # percent/s below which nothing is directed
    static_jitter: Annotated[float, Field(gt=0)] = 0.06
    handheld_jitter: Annotated[float, Field(gt=0)] = 0.15
    handheld_coherence: Annotated[float, Field(gt=0, le=1)] = 0.4
    dominant_share: Annotated[float, Field(gt=0.5, le=1)] = 0.6  # below: mixed, no class
    min_inlier_share: Annotated[float, Field(ge=0, le=1)] = 0.3


class ClarityConfig(StrictModel):
    """Sharpness is compared at this short side; smaller pictures are never enlarged."""

    short_side: Annotated[int, Field(ge=128)] = 540


class QualityConfig(StrictModel):
    """NIQE always; `model`: the network beside it, such as one's own DOVER export, or "niqe": none.

    The rest is for DOVER: how it samples (pipeline/score/dover_frames.py), from which seed, and
    how its branches become one number (schemas/dover.py).
    """

    num_frames: Annotated[int, Field(ge=1, le=8)] = 2
    max_short_side: Annotated[int, Field(ge=192)] = 720  # larger pictures are reduced to it
    model: WeightsName = "quality"
    dover_sampling: Sampling = "fixed"
    dover_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    dover_fusion: Fusion = "matched"


class TextConfig(StrictModel):
    """Text detection: two small frames first, more and larger ones where text was seen.

    On 139 real clips, 45 of them with legible text, two frames missed it in 2 and three in 4.
    """

    backend: Literal["rapidocr", "paddleocr"] = "rapidocr"
    num_scan_frames: Annotated[int, Field(ge=1, le=24)] = 2
    scan_long_side: Annotated[int, Field(ge=160, le=1920)] = 448
    num_follow_frames: Annotated[int, Field(ge=1, le=24)] = 6
    follow_long_side: Annotated[int, Field(ge=160, le=1920)] = 640
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.6


class BordersConfig(StrictModel):
    """Bars: even rows or columns at the edge that stay as they are while the picture changes."""

    max_dark_luma: Annotated[int, Field(ge=16, le=64)] = 24
    min_clip_luma: Annotated[float, Field(ge=0)] = 12.0  # darker clips are left alone
    max_bar_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.45  # of the side's length, per bar


class OverlaysConfig(StrictModel):
    """Overlays by the median gradient; `model`: a detector of kind `overlay` instead.

    `min_presence` is the detector's: in what share of the key frames an overlay must be found.
    `layout`: the model is a user's own YOLO, YOLOX or RT-DETR as its exporter wrote it, and
    `classes` are the kinds of its classes in their order, "" for those to leave out.
    """

    num_frames: Annotated[int, Field(ge=4, le=64)] = 16
    min_gradient: Annotated[float, Field(gt=0)] = 4.0  # 8-bit levels per pixel
    min_temporal_sd: Annotated[float, Field(ge=0)] = 6.0  # 8-bit levels; below: too still to tell
    corner_share: Annotated[float, Field(gt=0, le=0.5)] = 0.28  # of each side
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.5
    min_presence: Annotated[float, Field(gt=0, le=1)] = 0.8
    model: WeightsName | None = None
    layout: DetectorLayout | None = None
    classes: tuple[OverlayKind | Literal[""], ...] = ()

    @model_validator(mode="after")
    def _layout_and_classes_belong_together(self) -> Self:
        if self.layout is None and not self.classes:
            return self
        if self.model is None or self.layout is None or not any(self.classes):
            raise ValueError(
                "a detector of your own needs all three: model = 'path:FILE.onnx', layout, and "
                "classes with at least one kind"
            )
        return self


class SensitiveConfig(StrictModel):
    num_frames: Annotated[int, Field(ge=1, le=24)] = 3


class CropConfig(StrictModel):
    """Obstacles are cut away as long as this much of the displayed picture stays."""

    min_kept_area: Annotated[float, Field(gt=0, le=1)] = 0.6
    padding: Annotated[float, Field(ge=0, le=0.05)] = 0.005  # around subtitles and logos
    min_aspect: Annotated[float, Field(gt=0)] = 9 / 21
    max_aspect: Annotated[float, Field(gt=0)] = 21 / 9


class ScoreConfig(StrictModel):
    sampling: SamplingConfig = SamplingConfig()
    flow: FlowConfig = FlowConfig()
    camera: CameraConfig = CameraConfig()
    clarity: ClarityConfig = ClarityConfig()
    quality: QualityConfig = QualityConfig()
    text: TextConfig = TextConfig()
    borders: BordersConfig = BordersConfig()
    overlays: OverlaysConfig = OverlaysConfig()
    sensitive: SensitiveConfig = SensitiveConfig()
    crop: CropConfig = CropConfig()
