"""Size and EXIF orientation of a still image, from its header alone: nothing is decoded.

The size is known before any decoder may take memory for it. Formats: JPEG (ITU-T T.81), PNG,
WebP (RIFF container), GIF, BMP. Orientation: EXIF 2.3, tag 0x0112 of the first directory.
"""

import struct
from dataclasses import dataclass
from typing import IO

from pipeline.media.orientation import UPRIGHT, Orientation

_MAX_CHUNKS = 10_000
_MAX_EXIF_BYTES = 1 << 20
_ORIENTATION_TAG = 0x0112
_BY_EXIF_VALUE = {
    1: UPRIGHT,
    2: Orientation(mirror_x=True),
    3: Orientation(mirror_x=True, mirror_y=True),
    4: Orientation(mirror_y=True),
    5: Orientation(is_transposed=True),
    6: Orientation(is_transposed=True, mirror_x=True),
    7: Orientation(is_transposed=True, mirror_x=True, mirror_y=True),
    8: Orientation(is_transposed=True, mirror_y=True),
}
# Start-of-frame markers; C4, C8 and CC lie among them and are tables.
_JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_NO_LENGTH = {0x01, *range(0xD0, 0xD9)}
_JPEG_SCAN = 0xDA


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Stored size (before turning) and how to turn the picture upright."""

    width: int
    height: int
    orientation: Orientation = UPRIGHT


def read_image_header(file: IO[bytes]) -> ImageHeader | None:
    """From a file at its start; None for other formats and headers that make no sense."""
    head = file.read(32)
    try:
        if head.startswith(b"\xff\xd8"):
            return _jpeg(file)
        if head.startswith(b"\x89PNG"):
            return _png(file, head)
        if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            return _webp(file)
        if head.startswith(b"GIF8"):
            return ImageHeader(*struct.unpack_from("<HH", head, 6))
        if head.startswith(b"BM"):
            width, height = struct.unpack_from("<ii", head, 18)
            return ImageHeader(abs(width), abs(height))
    except struct.error:  # shorter than a header of its kind
        return None
    return None


def exif_orientation(data: bytes) -> Orientation:
    """From an EXIF block, with or without its `Exif` prefix; upright when it says nothing."""
    data = data.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return UPRIGHT
    try:
        (offset,) = struct.unpack_from(order + "I", data, 4)
        (num_entries,) = struct.unpack_from(order + "H", data, offset)
        for entry in range(num_entries):
            tag, _, _, value = struct.unpack_from(order + "HHIH", data, offset + 2 + 12 * entry)
            if tag == _ORIENTATION_TAG:
                return _BY_EXIF_VALUE.get(value, UPRIGHT)
    except struct.error:
        return UPRIGHT
    return UPRIGHT


def _jpeg(file: IO[bytes]) -> ImageHeader | None:
    file.seek(2)
    orientation = UPRIGHT
    for _ in range(_MAX_CHUNKS):
        byte = file.read(1)
        while byte and byte != b"\xff":
            byte = file.read(1)
        while byte == b"\xff":  # fill bytes may stand before a marker
            byte = file.read(1)
        if not byte or byte[0] == _JPEG_SCAN:
            return None
        if byte[0] in _JPEG_NO_LENGTH:
            continue
        (length,) = struct.unpack(">H", file.read(2))
        if byte[0] in _JPEG_FRAMES:
            height, width = struct.unpack(">xHH", file.read(5))
            return ImageHeader(width, height, orientation)
        segment = file.read(length - 2) if length > 2 else b""
        if byte[0] == 0xE1 and segment.startswith(b"Exif\0\0"):
            orientation = exif_orientation(segment)
    return None


def _png(file: IO[bytes], head: bytes) -> ImageHeader:
    width, height = struct.unpack_from(">II", head, 16)
    file.seek(8)
    for _ in range(_MAX_CHUNKS):
        header = file.read(8)
        if len(header) < 8 or header[4:] == b"IEND":
            break
        (length,) = struct.unpack_from(">I", header)
        if header[4:] == b"eXIf" and length <= _MAX_EXIF_BYTES:
            return ImageHeader(width, height, exif_orientation(file.read(length)))
        file.seek(length + 4, 1)
    return ImageHeader(width, height)


def _webp(file: IO[bytes]) -> ImageHeader | None:
    file.seek(12)
    size: tuple[int, int] | None = None
    orientation = UPRIGHT
    for _ in range(_MAX_CHUNKS):
        header = file.read(8)
        if len(header) < 8:
            break
        kind, length = struct.unpack("<4sI", header)
        start = file.tell()
        if kind == b"EXIF" and length <= _MAX_EXIF_BYTES:
            orientation = exif_orientation(file.read(length))
        elif size is None:
            size = _webp_size(kind, file.read(min(length, 10)))
        file.seek(start + length + length % 2)
    return None if size is None else ImageHeader(*size, orientation)


def _webp_size(kind: bytes, data: bytes) -> tuple[int, int] | None:
    if kind == b"VP8X":
        low_w, high_w, low_h, high_h = struct.unpack_from("<4xHBHB", data)
        return (low_w | high_w << 16) + 1, (low_h | high_h << 16) + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<xI", data)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<6xHH", data)
        return width & 0x3FFF, height & 0x3FFF
    return None
