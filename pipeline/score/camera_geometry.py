"""Camera movement by geometry: what the fitted motion and the parallax say, without a network.

The classes follow the recipe's list (HunyuanVideo, arXiv 2412.03603), which gives no definitions.
Ours: pan = the camera translates, tilt = it rotates, around = it moves on an arc about what it
looks at, zoom = lens or distance. Directions are the camera's: camera to the right, content to the
left. Rotation moves all depths alike and a little faster toward the edges (by 1 + tan^2 of the
angle); translation moves near things more than far ones. A distant or flat scene shows neither,
and then the estimate leans to rotation, which is the commoner one, with low confidence.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.score.config import CameraConfig
from pipeline.score.flow import FlowTrack
from schemas.scores import CameraMovement, CameraScore

MODEL_ID = "geometry-1"
FloatArray = NDArray[np.float64]

_PERCENT = 100.0
_SMOOTH_S = 1.0  # slower is drift, faster is shake
_AMBIGUOUS_CONFIDENCE = 0.55  # rotation or translation: nothing tells which
_AROUND_CONFIDENCE = 0.5  # a tracking shot of a moving subject looks the same
_PARALLAX_ROTATION = 0.06  # relative spread of speeds that fit errors alone produce
_PARALLAX_TRANSLATION = 0.18
_MIN_OPPOSED_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class _Motion:
    """A clip's camera motion. Speeds of the picture's center in percent of the diagonal per s."""

    right: float  # content to the right
    down: float  # content downward
    zoom: float  # natural-log scale per second
    roll_deg: float
    zoom_speed: float  # mean image speed that zoom and roll alone make, percent per s
    roll_speed: float
    jitter: float  # rms displacement above 1 Hz, percent
    coherence: float


def geometric_score(track: FlowTrack, config: CameraConfig) -> CameraScore:
    motion = _summary(track)
    parallax = _parallax(track)
    movement, confidence = _classify(track, motion, parallax, config)
    lean = float(np.clip((parallax - _PARALLAX_ROTATION)
                         / (_PARALLAX_TRANSLATION - _PARALLAX_ROTATION), 0.0, 1.0))  # fmt: skip
    return CameraScore(
        model_id=MODEL_ID,
        movement=movement,
        confidence=confidence,
        truck=-motion.right * lean,
        pedestal=motion.down * lean,
        yaw=-motion.right * (1 - lean),
        pitch=motion.down * (1 - lean),
        roll=motion.roll_deg,
        zoom=motion.zoom,
        jitter=motion.jitter,
        coherence=motion.coherence,
    )


def image_speed(track: FlowTrack, score: CameraScore) -> float:
    """Of the picture by the camera's drift, zoom and roll, percent of the diagonal per second."""
    drift = float(np.hypot(score.truck + score.yaw, score.pedestal + score.pitch))
    mean_radius = float(np.linalg.norm(track.xy_C2, axis=1).mean())
    turning = abs(score.zoom) + abs(float(np.radians(score.roll)))
    return drift + _PERCENT * mean_radius * turning


def _classify(
    track: FlowTrack, motion: _Motion, parallax: float, config: CameraConfig
) -> tuple[CameraMovement | None, float]:
    trust = float(np.median(track.inlier_share_S))
    if trust < config.min_inlier_share:
        return None, 0.0
    drift = float(np.hypot(motion.right, motion.down))
    directed = drift + motion.zoom_speed + motion.roll_speed
    if motion.jitter > config.handheld_jitter and motion.coherence < config.handheld_coherence:
        excess = motion.jitter / config.handheld_jitter
        return "handheld_shot", _confidence(min(1.0, excess / 2), trust)
    if directed < config.static_speed:
        if motion.jitter > config.static_jitter:
            return "handheld_shot", 0.5 * trust
        return "static_shot", _confidence(1.0 - directed / config.static_speed, trust)
    shares = {
        "horizontal": abs(motion.right) / directed,
        "vertical": abs(motion.down) / directed,
        "zoom": motion.zoom_speed / directed,
        "roll": motion.roll_speed / directed,
    }
    kind = max(shares, key=lambda name: shares[name])
    if shares[kind] < config.dominant_share or kind == "roll":
        return None, 0.0
    # Near the threshold of static the direction itself is in doubt.
    evidence = min(1.0, directed / (2 * config.static_speed)) * motion.coherence
    certainty = _confidence(
        (shares[kind] - config.dominant_share) / (1 - config.dominant_share), trust * evidence
    )
    if kind == "zoom":
        return ("zoom_in" if motion.zoom > 0 else "zoom_out"), certainty
    if kind == "horizontal" and _is_opposed(track):
        # The background moves with the camera, what is near moves against it.
        direction = float(np.sign(motion.right))
        return ("around_right" if direction > 0 else "around_left"), certainty * _AROUND_CONFIDENCE
    return _pan_or_tilt(kind, motion, parallax, certainty)


def _pan_or_tilt(
    kind: str, motion: _Motion, parallax: float, certainty: float
) -> tuple[CameraMovement, float]:
    is_translation = parallax > (_PARALLAX_ROTATION + _PARALLAX_TRANSLATION) / 2
    middle = (_PARALLAX_ROTATION + _PARALLAX_TRANSLATION) / 2
    half_width = (_PARALLAX_TRANSLATION - _PARALLAX_ROTATION) / 2
    told = min(1.0, abs(parallax - middle) / half_width)
    if not is_translation:
        told *= 0.5  # a lack of parallax may be a lack of depth
    certainty *= _AMBIGUOUS_CONFIDENCE + (1 - _AMBIGUOUS_CONFIDENCE) * told
    if kind == "horizontal":
        camera_right = motion.right < 0
        if is_translation:
            return ("pan_right" if camera_right else "pan_left"), certainty
        return ("tilt_right" if camera_right else "tilt_left"), certainty
    camera_up = motion.down > 0
    if is_translation:
        return ("pan_up" if camera_up else "pan_down"), certainty
    return ("tilt_up" if camera_up else "tilt_down"), certainty


def _confidence(margin: float, trust: float) -> float:
    return float(np.clip((0.6 + 0.4 * np.clip(margin, 0.0, 1.0)) * trust, 0.0, 1.0))


def _summary(track: FlowTrack) -> _Motion:
    dt_S = track.dt_S
    weight_S = dt_S / dt_S.sum()
    velocity_S2 = _PERCENT * track.model_S8[:, [0, 3]]
    zoom_S = (track.model_S8[:, 1] + track.model_S8[:, 5]) / 2
    roll_S = (track.model_S8[:, 4] - track.model_S8[:, 2]) / 2
    mean_radius = float(np.linalg.norm(track.xy_C2, axis=1).mean())
    right, down = weight_S @ velocity_S2
    zoom, roll = float(weight_S @ zoom_S), float(weight_S @ roll_S)
    # Displacement of the shake: the running sum of its velocity, about its own slow path.
    path_S2 = np.cumsum(_above_1_hz(velocity_S2, dt_S) * dt_S[:, None], axis=0)
    path_S2 = _above_1_hz(path_S2, dt_S)
    # Zoom and roll have a direction, too: each counts with the image speed that it makes.
    turning_S2 = _PERCENT * mean_radius * np.stack([zoom_S, roll_S], axis=1)
    motion_S4 = np.hstack([velocity_S2, turning_S2])
    total = float(weight_S @ np.linalg.norm(motion_S4, axis=1))
    coherence = float(np.linalg.norm(weight_S @ motion_S4)) / total if total > 0 else 1.0
    return _Motion(
        right=float(right),
        down=float(down),
        zoom=zoom,
        roll_deg=float(np.degrees(roll)),
        zoom_speed=_PERCENT * mean_radius * abs(zoom),
        roll_speed=_PERCENT * mean_radius * abs(roll),
        jitter=float(np.sqrt((path_S2**2).sum(axis=1).mean())),
        coherence=min(1.0, coherence),
    )


def _above_1_hz(values_S2: FloatArray, dt_S: FloatArray) -> FloatArray:
    """What is left after the mean over a second around each step."""
    width = max(1, round(_SMOOTH_S / float(np.median(dt_S))))
    kernel = np.ones(min(width | 1, len(values_S2)))
    norm = np.convolve(np.ones(len(values_S2)), kernel, mode="same")
    smooth = [np.convolve(column, kernel, mode="same") / norm for column in values_S2.T]
    return values_S2 - np.stack(smooth, axis=1)


def _parallax(track: FlowTrack) -> float:
    """Spread of the speeds along the main direction that a rotation does not explain.

    Relative to the main speed, from the middle half of the cells' residuals, plus the steady
    change of speed from the top to the bottom of the picture, as the ground shows it.
    """
    mean_S2 = track.global_SC2.mean(axis=1)
    speed_S = np.linalg.norm(mean_S2, axis=1)
    moving = speed_S > 0.25 * max(float(speed_S.max()), 1e-9)
    if not moving.any() or speed_S.max() < 1e-4:
        return 0.0
    direction_S2 = mean_S2[moving] / speed_S[moving, None]
    along_SC = np.einsum("sck,sk->sc", track.cells_SC2[moving], direction_S2)
    along_C = (along_SC / speed_S[moving, None]).mean(axis=0)
    across = track.xy_C2 @ np.array([-direction_S2.mean(axis=0)[1], direction_S2.mean(axis=0)[0]])
    ahead = track.xy_C2 @ direction_S2.mean(axis=0)
    # A rotation's speed depends on the position along its direction alone.
    rotation = np.stack([np.ones_like(ahead), ahead, ahead**2], axis=1)
    ground = np.stack([across], axis=1)
    fit = np.linalg.lstsq(np.hstack([rotation, ground]), along_C, rcond=None)[0]
    rest_C = along_C - np.hstack([rotation, ground]) @ fit
    low, high = np.percentile(rest_C, [15.87, 84.13])
    spread = (high - low) / 2
    return float(np.hypot(spread, fit[3] * float(across.std())))


def _is_opposed(track: FlowTrack) -> bool:
    """Whether a steady group of cells moves against the global motion."""
    mean_C2 = np.median(track.cells_SC2, axis=0)
    main = np.median(track.global_SC2, axis=(0, 1))
    speed = float(np.linalg.norm(main))
    if speed < 1e-3:
        return False
    along_C = mean_C2 @ main / speed
    # Half the main speed, so that a flow that spills over an edge does not count.
    return bool((along_C < -0.25 * speed).mean() >= _MIN_OPPOSED_SHARE)
