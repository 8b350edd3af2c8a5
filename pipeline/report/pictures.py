"""One small picture of a clip: its clear first frame. Kept beside the report, made once."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.media.config import MediaLimits
from pipeline.media.errors import MediaError
from pipeline.media.image import open_image
from pipeline.media.video import open_video
from pipeline.pack.config import EncodeConfig
from pipeline.pack.encode import encode_jpeg
from pipeline.storage import Store

logger = logging.getLogger(__name__)

_FOLDER = "report/pictures"
_LONG_SIDE_PX = 192
_JPEG = EncodeConfig(jpeg_quality=72)

ClipPlace = Mapping[str, Any]  # a row of the joined table


def clip_pictures(
    store: Store, clips: Iterable[ClipPlace], limits: MediaLimits
) -> dict[str, bytes]:
    """JPEGs by clip id. A clip whose source cannot be opened has none; it is logged once."""
    found: dict[str, bytes] = {}
    missing: dict[str, list[ClipPlace]] = defaultdict(list)
    kept = set(store.list(_FOLDER))
    for clip in clips:
        name = f"{clip['clip_id']}.jpg"
        if name in kept:
            found[clip["clip_id"]] = store.read_bytes(f"{_FOLDER}/{name}")
        else:
            missing[clip["source_uri"]].append(clip)
    for uri, members in sorted(missing.items()):
        logger.info("%d pictures out of %s", len(members), uri)
        members.sort(key=lambda clip: int(clip["clear_frame"]))
        try:
            for clip, image in _frames(uri, members, limits):
                data = encode_jpeg(image, _JPEG)
                store.write_bytes(f"{_FOLDER}/{clip['clip_id']}.jpg", data)
                found[clip["clip_id"]] = data
        except MediaError as error:
            logger.warning("no more pictures: %s", error)
    return found


def _frames(
    uri: str, clips: Sequence[ClipPlace], limits: MediaLimits
) -> Iterator[tuple[ClipPlace, NDArray[np.uint8]]]:
    """The clear first frames of clips of one source, in their order. Raises MediaError."""
    if clips[0]["media_kind"] == "image":
        image = open_image(uri, limits)
        for clip in clips:
            size = _small(clip)[::-1]
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            yield clip, np.asarray(small, dtype=np.uint8)
        return
    with open_video(uri, limits) as video:
        for clip in clips:
            first = int(clip["clear_frame"])
            start = (first, float(clip["clear_s"]))
            for frame in video.frames(size_HW=_small(clip), start=start, end_frame=first + 1):
                yield clip, frame.image


def _small(clip: ClipPlace) -> tuple[int, int]:
    height, width = int(clip["height"]), int(clip["width"])
    scale = _LONG_SIDE_PX / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))
