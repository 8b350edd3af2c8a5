"""The pictures that overlays are laid on: one file of JPEGs, divided by source.

Pictures of one source (a photograph, a video) have one group and never stand in two splits. The
group is drawn first, so that a long video does not outweigh many photographs.
"""

import functools
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from modeling.perception.overlays.layouts import cover
from modeling.perception.overlays.marks import Picture, Rng, Size

_LIST = "pictures.json"
_DATE = (1980, 1, 1, 0, 0, 0)
_PROCEDURAL_SHARE = 0.06
_SIZE_POWER = 0.25  # a video of 16 frames is drawn twice as often as a photograph


@dataclass(frozen=True, slots=True)
class Entry:
    """`group`: the source; `split`: train or held_out."""

    file: str
    group: str
    split: str
    licence: str


class Backgrounds:
    """Draws pictures of one split from a file that `write_backgrounds` made."""

    def __init__(self, path: Path, split: str) -> None:
        self._path = path
        with zipfile.ZipFile(path) as file:
            entries = [Entry(**row) for row in json.loads(file.read(_LIST))]
        groups: dict[str, list[str]] = {}
        for entry in entries:
            if entry.split == split:
                groups.setdefault(entry.group, []).append(entry.file)
        if not groups:
            raise ValueError(f"{path}: no pictures of split {split!r}")
        self.groups: Mapping[str, list[str]] = dict(sorted(groups.items()))
        sizes = np.array([len(names) for names in self.groups.values()], np.float64)
        self._weights = sizes**_SIZE_POWER / (sizes**_SIZE_POWER).sum()

    def draw(self, rng: Rng, size_HW: Size, count: int = 1) -> list[Picture]:
        """`count` pictures of different sources where there are enough, each a changed part."""
        num_groups = len(self.groups)
        chosen = rng.choice(num_groups, count, replace=count > num_groups, p=self._weights)
        names = list(self.groups.values())
        return [self._one(rng, names[int(index)], size_HW) for index in np.atleast_1d(chosen)]

    def read(self, name: str) -> Picture:
        """RGB."""
        with zipfile.ZipFile(self._path) as file:
            return _decoded(file.read(name))

    def _one(self, rng: Rng, names: list[str], size_HW: Size) -> Picture:
        if rng.random() < _PROCEDURAL_SHARE:
            return procedural(rng, size_HW)
        picture = _cached(self._path, names[int(rng.integers(0, len(names)))])
        return changed_part(rng, picture, size_HW)


def write_backgrounds(path: Path, pictures: Iterable[tuple[Entry, Picture]], quality: int) -> int:
    """Write the file, the same bytes for the same pictures; returns its size in bytes."""
    entries = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for entry, picture in pictures:
            bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
            _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
            file.writestr(zipfile.ZipInfo(entry.file, _DATE), data.tobytes())
            entries.append(asdict(entry))
        file.writestr(zipfile.ZipInfo(_LIST, _DATE), json.dumps(entries, indent=1))
    return path.stat().st_size


def changed_part(rng: Rng, picture_HWC: Picture, size_HW: Size) -> Picture:
    """A part of the picture at this size, at times mirrored, with slightly other colors."""
    height, width = picture_HWC.shape[:2]
    share = float(np.exp(rng.uniform(np.log(0.45), 0)))
    tall, wide = max(2, round(share * height)), max(2, round(share * width))
    top, left = int(rng.integers(0, height - tall + 1)), int(rng.integers(0, width - wide + 1))
    part = picture_HWC[top : top + tall, left : left + wide]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    part = cover(part, size_HW)
    gains = rng.uniform(0.9, 1.1, 3) * rng.uniform(0.6, 1.15)
    return np.asarray(np.clip(np.round(part * gains + rng.uniform(-12, 12)), 0, 255), np.uint8)


def procedural(rng: Rng, size_HW: Size) -> Picture:
    """Soft colors with grain at one scale: skies, walls, screens."""
    coarse = rng.uniform(0, 256, (int(rng.integers(1, 5)), int(rng.integers(1, 5)), 3))
    smooth = cv2.resize(coarse.astype(np.float32), size_HW[::-1], interpolation=cv2.INTER_CUBIC)
    cell = int(rng.integers(1, 24))
    grain = rng.normal(0, rng.uniform(0, 30), (size_HW[0] // cell + 1, size_HW[1] // cell + 1, 1))
    fine = cv2.resize(grain.astype(np.float32), size_HW[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(np.clip(np.round(smooth + fine[..., None]), 0, 255), np.uint8)


@functools.lru_cache(maxsize=256)
def _cached(path: Path, name: str) -> Picture:
    with zipfile.ZipFile(path) as file:
        return _decoded(file.read(name))


def _decoded(data: bytes) -> Picture:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("a background that is no picture")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
