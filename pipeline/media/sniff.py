"""What a file is, from its first bytes alone. Names and suffixes are never believed.

The result picks the one demuxer that may open the file, so that no probing by a media library
can turn a text file into a playlist that names other files or hosts.
"""

from dataclasses import dataclass

from pipeline.media.errors import MediaError
from schemas.source import MediaKind

HEAD_BYTES = 4096
_MOV_ATOMS = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"uuid"}
_IMAGE_BRANDS = {b"avif", b"heic", b"heix", b"mif1"}
_PLAYLIST_STARTS = (b"#EXTM3U", b"ffconcat", b"<?xml", b"<MPD", b"<SmoothStreamingMedia", b"v=0")
_PLAYLIST_WORDS = (b"<MPD", b"<SmoothStreamingMedia", b"<manifest", b"<smil")
_WEBP_ANIMATION = 0x02  # flag of the extended header
_TS_SYNC = 0x47
_TS_PACKET_BYTES = (188, 192, 204)  # plain, with a time code before it, with error correction
_ASF_GUID = bytes.fromhex("3026b2758e66cf11")


@dataclass(frozen=True, slots=True)
class Format:
    """`demuxer` is the name that the media library knows; `kind` what the bytes promise."""

    demuxer: str
    kind: MediaKind


def sniff(head: bytes, uri: str) -> Format:
    """The format of a file that starts with these bytes. Raises MediaError when there is none."""
    if not head:
        raise MediaError("empty_file", f"{uri}: 0 bytes")
    if _is_playlist(head):
        raise MediaError("playlist_refused", f"{uri}: names other media, which is never followed")
    demuxer = _image_demuxer(head, uri)
    if demuxer is not None:
        return Format(demuxer, "image")
    demuxer = _video_demuxer(head)
    if demuxer is not None:
        return Format(demuxer, "video")
    raise MediaError("not_media", f"{uri}: no known media format starts with {head[:8]!r}")


def _is_playlist(head: bytes) -> bool:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"<?xml"):
        return any(word in head for word in _PLAYLIST_WORDS)
    return start.startswith(_PLAYLIST_STARTS)


def _image_demuxer(head: bytes, uri: str) -> str | None:
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg_pipe"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        # acTL before the first IDAT makes it an animation; such a chunk lies within the head.
        return None if b"acTL" in head.partition(b"IDAT")[0] else "png_pipe"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        if head[12:16] == b"VP8X" and head[20] & _WEBP_ANIMATION:
            raise MediaError("unsupported_codec", f"{uri}: animated WebP cannot be decoded")
        return "webp_pipe"
    if head[4:8] == b"ftyp" and head[8:12] in _IMAGE_BRANDS:
        return "mov"
    if head.startswith(b"BM") and head[6:10] == b"\0\0\0\0":
        return "bmp_pipe"
    return None


def _video_demuxer(head: bytes) -> str | None:
    if head[4:8] in _MOV_ATOMS:
        return "mov"
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:12] in (b"AVI ", b"AVIX"):
        return "avi"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "apng"
    if head.startswith(b"FLV\x01"):
        return "flv"
    if head.startswith(b"OggS"):
        return "ogg"
    if head.startswith(_ASF_GUID):
        return "asf"
    if head.startswith(b"YUV4MPEG2"):
        return "yuv4mpegpipe"
    if head.startswith(b"\0\0\x01\xba"):
        return "mpeg"
    if head.startswith(b"\0\0\x01\xb3"):
        return "mpegvideo"
    return "mpegts" if _is_transport_stream(head) else None


def _is_transport_stream(head: bytes) -> bool:
    for size in _TS_PACKET_BYTES:
        offset = 4 if size == 192 else 0
        syncs = head[offset : offset + 5 * size : size]
        if len(syncs) == 5 and all(byte == _TS_SYNC for byte in syncs):
            return True
    return False
