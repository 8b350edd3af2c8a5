"""Photographs as layered scenes, seen by a moving camera in exact perspective.

A scene is some planes with photographs on them, the farthest one whole and maybe slanted as ground
is, the nearer ones in patches. A plane is the vector q with q . X = 1, so a point in direction
d = (x / f, y / f, 1) of the first view has inverse depth q . d, and a camera at c with rotation R
sees of it the homography [c q' + (1 - q . c) I] R. Large rotations go around a cylinder. Objects
that move on their own pass before it all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.camera_paths import CameraPath, FloatArray

Picture = NDArray[np.uint8]
FloatPicture = NDArray[np.float32]
_MIN_ROOM = 0.15  # of the way to a plane; nearer ones are not drawn
_PYRAMID_LEVELS = 4
_MAX_LEFT_OUT_ROLL = 0.05  # radians, of a camera that turns; without it views cost a fraction


@dataclass(frozen=True, slots=True)
class Layer:
    """`levels`: the picture with its mask as the last channel, each half the one before."""

    levels: tuple[Picture, ...]
    pixels_per_diagonal: float  # of level 0, in the first view
    offset_2: FloatArray  # of the texture, in diagonals
    plane_3: FloatArray
    wave: tuple[float, float, float]  # amplitude in diagonals, waves per diagonal, hertz

    def room(self, center_3: FloatArray) -> float:
        """How far the plane still lies ahead, 1 at the start; below 0 the camera has passed it."""
        return float(1 - self.plane_3 @ center_3)


@dataclass(frozen=True, slots=True)
class Mover:
    """A patch with a path of its own on the picture, in diagonals from the center."""

    picture: Picture  # the mask is the last channel
    start_2: FloatArray
    velocity_2: FloatArray
    swing_2: FloatArray
    hertz: float
    growth: float  # natural-log scale per second
    wave: tuple[float, float, float] = (0.0, 0.0, 0.0)  # as of a layer


@dataclass(frozen=True, slots=True)
class Scene:
    layers: tuple[Layer, ...]  # the farthest first
    movers: tuple[Mover, ...]


def draw_scene(
    rng: np.random.Generator,
    pictures: Sequence[Picture],
    *,
    focal: float,
    diagonal_px: float,
    background: float,
    path: CameraPath,
    is_flat: bool,
) -> Scene:
    """Pictures: H x W x C, all with the same C. `background`: inverse depth of the farthest."""
    slant = np.zeros(2) if is_flat else np.array([rng.normal(0, 0.15), rng.uniform(0, 0.9)])
    plane_3 = np.array([*(slant * background * focal / 0.35), background])
    for _ in range(8):
        if _stays_ahead(plane_3, path):
            break
        plane_3[:2] *= 0.5
    else:
        plane_3[:2] = 0.0
    layers = [_draw_layer(rng, pictures, plane_3, diagonal_px, is_whole=True)]
    near = background if is_flat else 1 / background
    for inverse_depth in sorted(
        np.exp(rng.uniform(np.log(background), np.log(near), rng.integers(1, 5)))
    ):
        plane = np.array([0.0, 0.0, inverse_depth])
        layers.append(_draw_layer(rng, pictures, plane, diagonal_px, is_whole=False))
    num_movers = int(rng.choice([0, 1, 2, 4], p=[0.45, 0.25, 0.2, 0.1]))
    movers = tuple(_draw_mover(rng, pictures, diagonal_px) for _ in range(num_movers))
    return Scene(tuple(layers), movers)


def add_figure(
    rng: np.random.Generator, scene: Scene, pictures: Sequence[Picture], *, diagonal_px: float
) -> Scene:
    """A swaying figure close to the camera, as people who talk or dance, often before a blur."""
    layers = list(scene.layers)
    if rng.random() < 0.5:
        sigma = rng.uniform(0.005, 0.03) * diagonal_px
        for index, layer in enumerate(layers):
            levels = tuple(_blurred(level, sigma / 2**n) for n, level in enumerate(layer.levels))
            layers[index] = replace(layer, levels=levels)
    width, hertz = rng.uniform(0.2, 0.65), rng.uniform(0.15, 1.2)
    swing = rng.normal(0, rng.uniform(0.003, 0.04), 2) * np.array([1.0, 0.6])
    at = np.array([rng.uniform(-0.2, 0.2), rng.uniform(0.05, 0.35)])
    drift = rng.normal(0, 0.02, 2) * (rng.random() < 0.3)
    wave = (rng.uniform(0.002, 0.02), rng.uniform(0.5, 3), rng.uniform(0.2, 1.2))
    parts = [(at, 1.0, width, width), (at - [0, 0.75 * width], 1.3, 0.45 * width, 0.5 * width)]
    if rng.random() < 0.5:  # a hand
        reach = at + rng.uniform(-0.3, 0.3, 2)
        parts.append((reach, rng.uniform(2, 5), 0.15 * width, 0.15 * width))
    figure = []
    for center, strength, part_width, part_height in parts:
        picture = pictures[int(rng.integers(len(pictures)))]
        size = (max(8, round(part_width * diagonal_px)), max(8, round(part_height * diagonal_px)))
        patch = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        patch = cv2.GaussianBlur(patch, (0, 0), rng.uniform(0.3, 3)).reshape(size[1], size[0], -1)
        y, x = np.mgrid[-1 : 1 : size[1] * 1j, -1 : 1 : size[0] * 1j]
        picture_and_mask = np.dstack([patch, 255 * (np.abs(x) ** 2.5 + np.abs(y) ** 2.5 < 1)])
        figure.append(
            Mover(
                picture=np.asarray(picture_and_mask, np.uint8),
                start_2=center,
                velocity_2=drift,
                swing_2=swing * strength,
                hertz=hertz * (1 if strength < 2 else rng.uniform(0.5, 2)),
                growth=rng.normal(0, 0.02),
                wave=wave,
            )
        )
    return Scene(tuple(layers), (*scene.movers, *figure))


def _blurred(level: Picture, sigma: float) -> Picture:
    """The picture, not its mask."""
    soft = cv2.GaussianBlur(np.ascontiguousarray(level[..., :-1]), (0, 0), max(0.3, sigma))
    return np.asarray(np.dstack([soft, level[..., -1]]), np.uint8)


def render_scene(
    scene: Scene, path: CameraPath, *, size_HW: tuple[int, int], num_blurred: int = 1
) -> Iterator[Picture]:
    """H x W x C per time of the path. `num_blurred`: views averaged over half a frame step."""
    base_map = _turn_map(path, size_HW)
    for index, time_s in enumerate(path.times_T):
        views = [
            _render_view(scene, path, index, shift, float(time_s), size_HW, base_map)
            for shift in np.linspace(0, 0.5, num_blurred + 1)[:num_blurred]
        ]
        yield views[0] if num_blurred == 1 else np.asarray(np.mean(views, axis=0), np.uint8)


def _render_view(
    scene: Scene,
    path: CameraPath,
    index: int,
    shift: float,
    time_s: float,
    size_HW: tuple[int, int],
    base_map: tuple[FloatPicture, FloatPicture] | None,
) -> Picture:
    """The view at a time of the path, or by `shift` of a step after it."""
    after = min(index + 1, len(path.times_T) - 1)

    def at(values: FloatArray) -> FloatArray:
        return np.asarray((1 - shift) * values[index] + shift * values[after])

    diagonal_px = float(np.hypot(*size_HW))
    look = _rotation(at(path.angles_T3)) @ _to_directions(float(at(path.focal_T)), size_HW)
    center, turn = at(path.center_T3), at(path.turn_T2)
    focal = float(np.median(path.focal_T))
    image: Picture | None = None
    for layer in scene.layers:
        if image is not None and layer.room(center) < _MIN_ROOM:
            continue
        if base_map is not None and not layer.wave[0]:
            moved_2 = turn * [1, -1] + at(path.angles_T3)[1::-1] * [1, -1]
            moved_2 = focal * (moved_2 + center[:2] * layer.plane_3[2])
            seen = _sample_turned(layer, base_map, moved_2)
        else:
            to_scene = (np.outer(center, layer.plane_3) + layer.room(center) * np.eye(3)) @ look
            seen = _sample(layer, to_scene, turn, focal, time_s, size_HW)
        image = _over(image, seen)
    assert image is not None
    for mover in scene.movers:
        image = _over(image, _mover_view(mover, time_s, diagonal_px, size_HW))
    return image


def _over(image: Picture | None, seen: Picture) -> Picture:
    """`seen` where its mask, the last channel, says so."""
    if image is None:
        return np.ascontiguousarray(seen[..., :-1])
    color, mask = np.ascontiguousarray(seen[..., :-1]), cv2.inRange(seen[..., -1], 128, 255)
    shape = image.shape
    return np.asarray(cv2.copyTo(color, mask, image), np.uint8).reshape(shape)


def _to_directions(focal: float, size_HW: tuple[int, int]) -> FloatArray:
    """From pixels to directions of the camera."""
    height, width = size_HW
    focal_px = focal * float(np.hypot(height, width))
    return np.array([[1 / focal_px, 0, -(width - 1) / 2 / focal_px],
                     [0, 1 / focal_px, -(height - 1) / 2 / focal_px], [0, 0, 1]])  # fmt: skip


def _turn_map(
    path: CameraPath, size_HW: tuple[int, int]
) -> tuple[FloatPicture, FloatPicture] | None:
    """Where a camera that only turns looks at the cylinder around it, in diagonals.

    A turn then adds to one coordinate; little sideways steps and shake add to both. None where the
    path also rolls, zooms or walks ahead, or does not turn.
    """
    is_plain = np.ptp(path.focal_T) == 0 and not path.center_T3[:, 2].any()
    if not path.turn_T2.any() or not is_plain or np.ptp(path.angles_T3[:, 2]) > _MAX_LEFT_OUT_ROLL:
        return None
    focal = float(np.median(path.focal_T))
    yaw_range, pitch_range = np.ptp(path.turn_T2, axis=0)
    u, v = _cylinder(_to_directions(focal, size_HW), size_HW, is_upright=yaw_range >= pitch_range)
    return focal * u, focal * v


def _cylinder(
    to_scene: FloatArray, size_HW: tuple[int, int], *, is_upright: bool
) -> tuple[FloatPicture, FloatPicture]:
    y, x = np.mgrid[: size_HW[0], : size_HW[1]].astype(np.float32)
    matrix = (to_scene / to_scene[2, 2]).astype(np.float32)
    right, down, ahead = (row[0] * x + row[1] * y + row[2] for row in matrix)
    if is_upright:
        return np.arctan2(right, ahead), down / np.hypot(right, ahead)
    return right / np.hypot(down, ahead), np.arctan2(down, ahead)


def _sample_turned(
    layer: Layer, base_map: tuple[FloatPicture, FloatPicture], moved_2: FloatArray
) -> Picture:
    level = 0 if layer.pixels_per_diagonal * 1.0 <= 1.4 * base_map[0].shape[1] else 1
    level = min(level, len(layer.levels) - 1)
    scale = np.float32(layer.pixels_per_diagonal / 2**level)
    u, v = (scale * (m + np.float32(d)) for m, d in
            zip(base_map, moved_2 + layer.offset_2, strict=True))  # fmt: skip
    seen = cv2.remap(layer.levels[level], u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(seen, np.uint8)


def _sample(
    layer: Layer,
    to_scene: FloatArray,
    turn_2: FloatArray,
    focal: float,
    time_s: float,
    size_HW: tuple[int, int],
) -> Picture:
    """The layer's texture under the view, H x W x (C + 1)."""
    level = _level(layer, to_scene, focal, size_HW)
    scale = layer.pixels_per_diagonal / 2**level
    texture = layer.levels[level]
    if not turn_2.any() and not layer.wave[0]:
        at_x, at_y = layer.offset_2 * scale
        to_texture = np.array([[focal * scale, 0, at_x], [0, focal * scale, at_y], [0, 0, 1]])
        seen = cv2.warpPerspective(
            texture,
            to_texture @ to_scene,
            size_HW[::-1],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        )
        return np.asarray(seen, np.uint8)
    yaw, pitch = turn_2
    u, v = _cylinder(to_scene, size_HW, is_upright=abs(yaw) >= abs(pitch))
    u = focal * (u + np.float32(yaw)) + np.float32(layer.offset_2[0])
    v = focal * (v - np.float32(pitch)) + np.float32(layer.offset_2[1])
    if layer.wave[0]:
        u, v = _waved(u, v, layer.wave, time_s)
    seen = cv2.remap(
        texture,
        np.asarray(u * scale, np.float32),
        np.asarray(v * scale, np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )
    return np.asarray(seen, np.uint8)


def _waved(
    u: FloatPicture, v: FloatPicture, wave: tuple[float, float, float], time_s: float
) -> tuple[FloatPicture, FloatPicture]:
    amplitude, waves, hertz = wave
    phase = 2 * np.pi * (waves * (u + 0.6 * v) + hertz * time_s)
    moved = u + amplitude * np.sin(phase), v + amplitude * np.cos(1.7 * phase)
    return np.asarray(moved[0], np.float32), np.asarray(moved[1], np.float32)


def _level(layer: Layer, to_scene: FloatArray, focal: float, size_HW: tuple[int, int]) -> int:
    """The level whose pixels are about as large as the view's, at the view's center."""
    y, x = (size_HW[0] - 1) / 2, (size_HW[1] - 1) / 2
    here, beside = to_scene @ np.array([x, y, 1]), to_scene @ np.array([x + 1, y, 1])
    step = np.linalg.norm(beside[:2] / beside[2] - here[:2] / here[2]) * focal
    minified = np.log2(max(1e-6, float(step) * layer.pixels_per_diagonal))
    return int(np.clip(round(minified), 0, len(layer.levels) - 1))


def _mover_view(
    mover: Mover, time_s: float, diagonal_px: float, size_HW: tuple[int, int]
) -> Picture:
    height, width = size_HW
    swing = np.sin(2 * np.pi * mover.hertz * time_s) * mover.swing_2
    at_x, at_y = (mover.start_2 + mover.velocity_2 * time_s + swing) * diagonal_px
    scale = float(np.exp(mover.growth * time_s))
    patch_height, patch_width = mover.picture.shape[:2]
    if mover.wave[0]:
        y, x = np.mgrid[:height, :width].astype(np.float32)
        u = (x - np.float32(at_x + width / 2)) / np.float32(scale * diagonal_px)
        v = (y - np.float32(at_y + height / 2)) / np.float32(scale * diagonal_px)
        u, v = _waved(u, v, mover.wave, time_s)
        return np.asarray(
            cv2.remap(
                mover.picture,
                np.asarray(u * diagonal_px + patch_width / 2, np.float32),
                np.asarray(v * diagonal_px + patch_height / 2, np.float32),
                cv2.INTER_LINEAR,
            ),
            np.uint8,
        )
    matrix = np.array([[scale, 0, at_x + width / 2 - scale * patch_width / 2],
                       [0, scale, at_y + height / 2 - scale * patch_height / 2]])  # fmt: skip
    return np.asarray(cv2.warpAffine(mover.picture, matrix, (width, height)), np.uint8)


def _draw_layer(
    rng: np.random.Generator,
    pictures: Sequence[Picture],
    plane_3: FloatArray,
    diagonal_px: float,
    *,
    is_whole: bool,
) -> Layer:
    picture = pictures[int(rng.integers(len(pictures)))]
    # The picture spans 0.8 to 1.6 diagonals where its plane lies at depth 1.
    span = rng.uniform(0.8, 1.6) * (1.0 if is_whole else plane_3[2])
    diagonal = float(np.hypot(*picture.shape[:2]))
    shrink = min(1.0, 1.5 * diagonal_px * span / diagonal)
    small = cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    small = small.reshape(*small.shape[:2], -1)
    if rng.random() < 0.5:
        small = small[:, ::-1]
    mask = np.ones(small.shape[:2]) if is_whole else _draw_mask(rng, small.shape[:2])
    levels = [np.asarray(np.dstack([small, 255 * mask]), np.uint8)]
    for _ in range(_PYRAMID_LEVELS - 1):
        if min(levels[-1].shape[:2]) < 16:
            break
        levels.append(np.asarray(cv2.pyrDown(levels[-1]), np.uint8))
    wave = (0.0, 0.0, 0.0)
    if rng.random() < 0.04:  # water, leaves
        wave = (rng.uniform(0.001, 0.006), rng.uniform(3, 12), rng.uniform(0.3, 1.5))
    return Layer(
        levels=tuple(levels),
        pixels_per_diagonal=shrink * diagonal / span,
        offset_2=rng.uniform(-span, span, 2),
        plane_3=plane_3,
        wave=wave,
    )


def _draw_mask(rng: np.random.Generator, size_HW: tuple[int, ...]) -> FloatPicture:
    """Patches with sharp edges, of a random share of the area."""
    height, width = size_HW
    cells = rng.integers(2, 7, 2)
    coarse = rng.normal(size=(int(cells[0]), int(cells[1]))).astype(np.float32)
    if rng.random() < 0.4:  # it stands on the ground
        coarse += np.linspace(-1.5, 1.5, int(cells[0]), dtype=np.float32)[:, None]
    field = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    level = np.quantile(field, rng.uniform(0.45, 0.9))
    return np.asarray(field > level, np.float32)


def _draw_mover(rng: np.random.Generator, pictures: Sequence[Picture], diagonal_px: float) -> Mover:
    picture = pictures[int(rng.integers(len(pictures)))]
    height, width = (round(rng.uniform(0.08, 0.5) * diagonal_px) for _ in range(2))
    patch = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    patch = patch.reshape(height, width, -1)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = np.arctan2(y, x)
    edge = 0.75 + 0.15 * np.sin(rng.integers(2, 6) * angle + rng.uniform(0, 6))
    mask = 255 * (np.hypot(x, y) < edge)
    return Mover(
        picture=np.asarray(np.dstack([patch, mask]), np.uint8),
        start_2=rng.uniform(-0.4, 0.4, 2),
        velocity_2=rng.normal(0, 0.08, 2) * (rng.random() < 0.7),
        swing_2=rng.normal(0, 0.04, 2) * (rng.random() < 0.6),
        hertz=rng.uniform(0.2, 2.5),
        growth=rng.normal(0, 0.1) * (rng.random() < 0.4),
    )


def _stays_ahead(plane_3: FloatArray, path: CameraPath) -> bool:
    """Whether the whole view lies before the plane at all times."""
    half = 0.5 / float(path.focal_T.min())
    corners = np.array([[sx * half, sy * half, 1] for sx in (-1, 1) for sy in (-1, 1)])
    for center, angles in zip(path.center_T3[::4], path.angles_T3[::4], strict=True):
        inverse_depths = (_rotation(angles) @ corners.T).T @ plane_3
        if 1 - plane_3 @ center < 0.3 or inverse_depths.min() < 0.15 * plane_3[2]:
            return False
    return True


def _rotation(angles_3: FloatArray) -> FloatArray:
    """From the camera to the scene: roll, then pitch, then yaw."""
    pitch, yaw, roll = angles_3
    (cp, sp), (cy, sy), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (pitch, yaw, roll))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return np.asarray(about_y @ about_x @ about_z)
