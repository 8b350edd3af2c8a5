"""Camera paths of the 14 movements, drawn at random, with their labels by construction.

Axes: x right, y down, z forward. The subject is at depth 1, and positions of the camera are in that
unit; focal lengths and image speeds are in diagonals of the picture. A label names what the camera
does: pan = it translates, tilt = it rotates, zoom = lens or distance, around = it moves on an arc
about the subject. One movement has at least 70 % of the image speed; else the label is None.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.scores import CameraMovement

FloatArray = NDArray[np.float64]
MEAN_RADIUS = 0.27  # mean distance from the picture's center, in diagonals

_MAX_SPEED = 0.6  # diagonals per second
_MIN_SPEED = 0.008
_MIN_TRAVEL = 0.02  # diagonals over the clip; less is not seen
_MAX_STEP = 0.08  # diagonals between two sampled frames
_MAX_LOG_SCALE = float(np.log(3.0))
_MAX_ARC = np.radians(70.0)
_STATIC_SHAKE = (0.0001, 0.0005)  # rms, diagonals
_HANDHELD_SHAKE = (0.0013, 0.02)
_MAX_HANDHELD_COHERENCE = 0.4


@dataclass(frozen=True, slots=True)
class CameraPath:
    """Pose at T times. Angles in radians: pitch up, yaw to the right, roll clockwise.

    `turn_T2` (yaw, pitch) is a rotation of any size; `angles_T3` come on top and stay small.
    """

    label: CameraMovement | None  # None: mixed
    is_dolly: bool | None  # of a zoom: by distance, not by the lens
    times_T: FloatArray
    center_T3: FloatArray
    angles_T3: FloatArray
    turn_T2: FloatArray
    focal_T: FloatArray


def draw_path(
    rng: np.random.Generator,
    label: CameraMovement | None,
    times_T: FloatArray,
    *,
    focal: float,
    background: float,
    sampled_every_s: float | None = None,
) -> CameraPath:
    """A path with this label. `background`: inverse depth of what is farthest, below 1.

    `sampled_every_s`: between the frames that flow is taken of, where these are not all of them.
    """
    step_s = sampled_every_s or float(np.median(np.diff(times_T)))
    if label == "static_shot":
        shake_T5 = _log_uniform(rng, *_STATIC_SHAKE) * draw_shake(rng, times_T)
        if rng.random() < 0.5:
            shake_T5 *= 0.0
        return _assemble(label, None, times_T, {}, np.zeros(len(times_T)), shake_T5, focal)
    if label == "handheld_shot":
        shake_T5 = _log_uniform(rng, *_HANDHELD_SHAKE) * _aimless_shake(rng, times_T)
        return _assemble(label, None, times_T, {}, np.zeros(len(times_T)), shake_T5, focal)
    progress_T = _draw_progress(rng, times_T)
    duration_s = float(np.ptp(progress_T))
    low = max(_MIN_SPEED, _MIN_TRAVEL / duration_s)
    speed = _log_uniform(rng, low, max(1.2 * low, min(_MAX_SPEED, _MAX_STEP / step_s)))
    speeds = _draw_speeds(rng, label, speed)
    for name in ("dolly", "lens"):
        limit = _MAX_LOG_SCALE * MEAN_RADIUS / duration_s
        speeds[name] = float(np.clip(speeds.get(name, 0.0), -limit, limit))
    if "arc" in speeds:  # so fast that the background moves at this speed
        rate = speeds["arc"] / (focal * (1 - background))
        speeds["arc"] = float(np.clip(rate, -_MAX_ARC / duration_s, _MAX_ARC / duration_s))
    shake_T5 = np.zeros((len(times_T), 5))
    if rng.random() < 0.5:
        largest = min(0.006, speed * duration_s / 6)
        shake_T5 = _log_uniform(rng, 0.0002, max(0.0003, largest)) * draw_shake(rng, times_T)
    is_zoom = label in ("zoom_in", "zoom_out")
    is_dolly = abs(speeds["dolly"]) > abs(speeds["lens"]) if is_zoom else None
    return _assemble(label, is_dolly, times_T, speeds, progress_T, shake_T5, focal)


def draw_shake(rng: np.random.Generator, times_T: FloatArray) -> FloatArray:
    """T x 5 (x, y, roll, sideways, up) with an rms of 1 over x and y: noise of 0.3 to 8 Hz."""
    hz_F = _log_uniform_array(rng, 0.3, 8.0, 24)
    steepness = rng.uniform(0.6, 1.6)
    waves_FT = np.sin(
        2 * np.pi * (hz_F[:, None] * times_T + rng.random((len(hz_F), 1)))
    )  # fmt: skip
    weights_5F = rng.normal(size=(5, len(hz_F))) / hz_F**steepness
    if rng.random() < 0.25:  # the bob of a walk, mostly up and down
        hz = rng.uniform(1.5, 2.2)
        waves_FT = np.vstack([waves_FT, np.sin(2 * np.pi * hz * times_T + rng.uniform(0, 6))])
        bob = rng.uniform(0.5, 2) * np.linalg.norm(weights_5F[:2])
        weights_5F = np.hstack([weights_5F, bob * np.array([[0.3], [1], [0.2], [0.3], [1]])])
    shake_T5 = (weights_5F @ waves_FT).T
    shake_T5 -= shake_T5.mean(axis=0)
    shake_T5 /= max(1e-9, float(np.sqrt((shake_T5[:, :2] ** 2).sum(axis=1).mean())))
    return np.asarray(shake_T5 * np.array([1, 1, rng.uniform(0, 2), *[rng.uniform(0, 0.6)] * 2]))


def _aimless_shake(rng: np.random.Generator, times_T: FloatArray) -> FloatArray:
    """Shake that leads nowhere; the best of some draws where a clip is too short for it."""
    draws = [draw_shake(rng, times_T) for _ in range(8)]
    for shake_T5 in draws:
        if _coherence(shake_T5) < _MAX_HANDHELD_COHERENCE:
            return shake_T5
    return min(draws, key=_coherence)


def _coherence(shake_T5: FloatArray) -> float:
    steps = np.diff(shake_T5[:, :2], axis=0)
    return float(np.linalg.norm(steps.sum(axis=0)) / np.linalg.norm(steps, axis=1).sum())


def _draw_progress(rng: np.random.Generator, times_T: FloatArray) -> FloatArray:
    """Seconds of steady motion passed by each time: constant, eased, or with a rest."""
    share_T = (times_T - times_T[0]) / max(1e-9, float(np.ptp(times_T)))
    kind = rng.choice(["constant", "eased", "rest", "uneven"], p=[0.45, 0.25, 0.15, 0.15])
    if kind == "constant":
        speed_T = np.ones_like(share_T)
    elif kind == "eased":
        ramp = rng.uniform(0.1, 0.5)
        speed_T = np.clip(np.minimum(share_T, 1 - share_T) / ramp, 0.05, 1)
    elif kind == "rest":
        start = rng.uniform(0, 0.4)
        speed_T = ((share_T >= start) & (share_T <= start + rng.uniform(0.5, 0.7))).astype(float)
        speed_T = np.convolve(np.pad(speed_T, 1, mode="edge"), np.ones(3) / 3, mode="valid")
    else:
        speed_T = 1 + 0.5 * np.sin(2 * np.pi * (rng.uniform(0.5, 2) * share_T + rng.random()))
    middle = (speed_T[1:] + speed_T[:-1]) / 2
    return np.concatenate([[0.0], np.cumsum(middle * np.diff(times_T))])


def _draw_speeds(
    rng: np.random.Generator, label: CameraMovement | None, speed: float
) -> dict[str, float]:
    """Image speed by component, signed, in diagonals per second."""
    families = {"right": ["truck", "yaw"], "up": ["pedestal", "pitch"], "in": ["dolly", "lens"]}
    if label is None:
        groups = [*families.values(), ["roll"]]
        index = rng.permutation(len(groups))[:2]
        share = rng.uniform(0.42, 0.58)
        if rng.random() < 0.2:
            return {"roll": _signed(rng, speed)}
        first, second = (str(rng.choice(groups[i])) for i in index)
        return {first: _signed(rng, speed * share), second: _signed(rng, speed * (1 - share))}
    kind, direction = label.split("_")
    sign = -1.0 if direction in ("left", "down", "out") else 1.0
    if kind == "around":
        speeds = {"arc": sign * speed}
    elif kind == "zoom":
        speeds = {str(rng.choice(families["in"])): sign * speed}
    else:
        family = families["right" if direction in ("left", "right") else "up"]
        speeds = {family[0 if kind == "pan" else 1]: sign * speed}
    if rng.random() < 0.5:
        others = ["truck", "pedestal", "yaw", "pitch", "dolly", "lens", "roll"]
        for name in rng.choice(others, size=2, replace=False):
            if name not in speeds:
                speeds[str(name)] = _signed(rng, rng.uniform(0, 0.12) * speed)
    return speeds


def _assemble(
    label: CameraMovement | None,
    is_dolly: bool | None,
    times_T: FloatArray,
    speeds: dict[str, float],
    progress_T: FloatArray,
    shake_T5: FloatArray,
    focal: float,
) -> CameraPath:
    """From image speeds to poses; the middle of the clip is the origin."""
    passed_T = progress_T - progress_T[-1] / 2

    def moved(name: str) -> FloatArray:
        return np.asarray(speeds.get(name, 0.0) * passed_T)

    x, y, turn, sideways, up = shake_T5.T
    arc_T = moved("arc")
    center_T3 = np.stack(
        [
            (moved("truck") + sideways) / focal + np.sin(arc_T),
            -(moved("pedestal") + up) / focal,
            1 - np.exp(-moved("dolly") / MEAN_RADIUS) + 1 - np.cos(arc_T),
        ],
        axis=1,
    )
    angles_T3 = np.stack([y / focal, x / focal - arc_T, moved("roll") / MEAN_RADIUS + turn], axis=1)
    return CameraPath(
        label=label,
        is_dolly=is_dolly,
        times_T=times_T,
        center_T3=center_T3,
        angles_T3=angles_T3,
        turn_T2=np.stack([moved("yaw"), moved("pitch")], axis=1) / focal,
        focal_T=focal * np.exp(moved("lens") / MEAN_RADIUS),
    )


def _signed(rng: np.random.Generator, size: float) -> float:
    return size if rng.random() < 0.5 else -size


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _log_uniform_array(rng: np.random.Generator, low: float, high: float, count: int) -> FloatArray:
    return np.exp(rng.uniform(np.log(low), np.log(high), count))
