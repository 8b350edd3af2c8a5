"""What the score stages measure. Numbers only: thresholds live in the tier step alone.

Every score describes the clip's sample window: from the clear first frame, at most the longest
listed frame count. `borders`, `text`, `overlays` and `crop` see the whole picture; all others see
the clean crop. Boxes and crops are shares of the displayed picture, so they hold at any size.
"""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import StrictModel
from schemas.dover import Fusion

Share = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
CameraMovement = Literal[
    "zoom_in",
    "zoom_out",
    "pan_up",
    "pan_down",
    "pan_left",
    "pan_right",
    "tilt_up",
    "tilt_down",
    "tilt_left",
    "tilt_right",
    "around_left",
    "around_right",
    "static_shot",
    "handheld_shot",
]
# In this order: detectors name a kind by its place, so new ones come last.
OverlayKind = Literal[
    "corner_logo",
    "watermark",
    "subtitle",
    "banner",
    "picture_in_picture",
    "unknown",
    "watermark_tiled",  # one box around all repetitions
    "border",  # a bar at an edge
    "blurred_fill",  # a side filled with the picture itself, enlarged and blurred
    "collage",  # one cell of several pictures in one
]


class Box(StrictModel):
    """Shares of the displayed picture: 0, 0 is the top left corner; right and bottom exclusive."""

    left: Share
    top: Share
    right: Share
    bottom: Share

    @property
    def area(self) -> float:
        return max(0.0, self.right - self.left) * max(0.0, self.bottom - self.top)


FULL_PICTURE = Box(left=0, top=0, right=1, bottom=1)


class MotionScore(StrictModel):
    """Speeds in percent of the frame diagonal per second; independent of size and frame rate."""

    speed: NonNegative  # median over time of the mean flow magnitude
    speed_p90: NonNegative
    camera_speed: NonNegative  # mean magnitude of the fitted global motion
    object_speed: NonNegative  # mean magnitude of what the global motion leaves over
    moving_area: Share  # whose residual exceeds 0.5 %/s and a twentieth of the camera's speed
    num_pairs: Annotated[int, Field(ge=1)]


class CameraScore(StrictModel):
    """Camera movement class with its confidence, and the velocities that it was derived from.

    Directions are the camera's (camera to the right: content moves left). Translation and
    rotation rates are a first geometric estimate, in percent of the diagonal per second of image
    motion; roll in degrees per second; zoom in natural-log scale per second.
    """

    model_id: str
    movement: CameraMovement | None  # None: no class fits (mixed, or too little texture)
    confidence: Share
    truck: float
    pedestal: float
    yaw: float
    pitch: float
    roll: float
    zoom: float
    jitter: NonNegative  # rms above 1 Hz, percent of the diagonal
    coherence: Share  # |sum of velocities| / sum of |velocities|
    is_sure: bool | None = None  # reaches the threshold of its class; None: there is none
    dolly: Share | None = None  # of a zoom: how likely it is one by distance, not by the lens


class ClarityScore(StrictModel):
    """Sharpness, comparable between clips (texture-normalised Laplacian; higher is sharper)."""

    sharpness: float
    laplacian_variance: NonNegative  # classical, 8-bit luma at short side 540; for reference
    effective_height: NonNegative  # pixels: what the spectrum supports of the picture's height


class QualityScore(StrictModel):
    """Technical quality by natural-scene statistics: lower is better (about 6 to 25)."""

    model_id: str
    niqe: NonNegative
    learned: float | None = None  # a quality network's own scale; None without one
    blur_px: NonNegative | None = None  # sigma of the Gaussian that blurs as much; where it is told
    # The two branches of a DOVER network, without bounds; `learned` is then what fuses them.
    technical: float | None = None
    aesthetic: float | None = None
    fusion: Fusion | None = None


class AestheticScore(StrictModel):
    """A proxy from colour, contrast and composition, in [0, 1]. Not trained on human ratings."""

    model_id: str
    aesthetic_proxy: Share


class ExposureScore(StrictModel):
    """Luma statistics on 8-bit luma."""

    mean_luma: Annotated[float, Field(ge=0, le=255)]
    luma_sd: NonNegative
    dark_share: Share  # pixels at or below 16
    bright_share: Share  # pixels at or above 239
    saturation: Share
    flicker: NonNegative  # sd over time of the mean luma, 8-bit levels


class BorderScore(StrictModel):
    """Constant bars at the edges, in displayed pixels."""

    left_px: Annotated[int, Field(ge=0)]
    right_px: Annotated[int, Field(ge=0)]
    top_px: Annotated[int, Field(ge=0)]
    bottom_px: Annotated[int, Field(ge=0)]


class TextTrack(StrictModel):
    """One text box followed over the sampled frames."""

    box: Box
    presence: Share  # share of the sampled frames that show it
    changes: bool  # the words change while the place stays: a subtitle
    text: str


class TextScore(StrictModel):
    """Area of text as a share of the picture: union of boxes per frame."""

    model_id: str
    mean_area: Share
    max_area: Share
    persistent_area: Share  # tracks present in at least half of the frames
    subtitle_band: Box | None
    tracks: tuple[TextTrack, ...]
    num_frames: Annotated[int, Field(ge=1)]


class Overlay(StrictModel):
    """Something laid over the picture that does not move with it."""

    kind: OverlayKind
    box: Box
    presence: Share
    confidence: Share


class OverlayScore(StrictModel):
    """Persistent overlays. `num_frames` says how many frames were compared."""

    model_id: str
    overlays: tuple[Overlay, ...]
    area: Share
    comparable: bool  # False: the picture moves too little to tell an overlay from the scene
    num_frames: Annotated[int, Field(ge=1)]


class SensitiveScore(StrictModel):
    """Probability that a frame is unsafe; maximum and mean over the sampled frames."""

    model_id: str
    max_probability: Share
    mean_probability: Share


class CropScore(StrictModel):
    """The largest clean crop: without borders, subtitles and corner logos.

    Where that would keep too little of the picture, only the borders are cut away and
    `overlay_area` says what stays.
    """

    box: Box  # even pixels of the displayed picture
    kept_area: Share  # of the displayed picture
    text_mean_area: Share  # text left inside the crop, share of the crop
    text_max_area: Share
    overlay_area: Share  # overlays left inside the crop, share of the crop


class ClipScores(StrictModel):
    """All scores of one clip. None: the stage did not run or failed (its table says why)."""

    motion: MotionScore | None = None  # None for images
    camera: CameraScore | None = None  # None for images
    clarity: ClarityScore | None = None
    quality: QualityScore | None = None
    aesthetic: AestheticScore | None = None
    exposure: ExposureScore | None = None
    borders: BorderScore | None = None
    text: TextScore | None = None
    overlays: OverlayScore | None = None
    sensitive: SensitiveScore | None = None
    crop: CropScore | None = None
