"""What a source is: video or image, decided by content, with the facts of either."""

from pipeline.media.config import MediaLimits
from pipeline.media.errors import MediaError
from pipeline.media.fetch import local_path, read_head
from pipeline.media.image import check_header, probe_image
from pipeline.media.sniff import sniff
from pipeline.media.video import VideoReader
from schemas.source import Probe

_MAYBE_ANIMATED = {"gif", "apng"}


def probe_media(uri: str, limits: MediaLimits) -> Probe:
    """Decodes no more than the first pictures. Raises MediaError.

    A GIF or PNG animation of several frames is a video, one of a single frame an image.
    """
    with local_path(uri, limits) as path:
        format = sniff(read_head(path, uri), uri)
        if format.kind == "image":
            return probe_image(path, uri, format, limits)
        if format.demuxer in _MAYBE_ANIMATED:
            check_header(path, uri, limits.max_video_pixels)
            if not _has_two_frames(VideoReader(path, uri, format, limits)):
                return probe_image(path, uri, format, limits)
        reader = VideoReader(path, uri, format, limits)
        try:
            reader.display_size  # noqa: B018 - refuses a stretched size over the limit
            return reader.probe
        finally:
            reader.close()


def _has_two_frames(reader: VideoReader) -> bool:
    try:
        return sum(1 for _ in reader.av_frames(end_frame=2)) == 2
    except MediaError:
        return False
    finally:
        reader.close()
