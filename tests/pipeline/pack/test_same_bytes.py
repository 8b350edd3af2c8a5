"""Equal pictures give equal bytes, whatever the encoder's memory held before."""

from fractions import Fraction
from pathlib import Path

from pipeline.media.config import MediaLimits
from pipeline.media.uris import file_uri
from pipeline.media.video import open_video
from pipeline.pack.config import EncodeConfig
from pipeline.pack.encode import encode_mp4
from tests.media_files import moving_frames, scenes, write_video

_SIZE_HW = (48, 80)


def test_an_encode_does_not_depend_on_what_was_decoded_and_encoded_before(tmp_path: Path) -> None:
    """A decoder's freed memory becomes the encoder's; some of x264's code reads it unwritten."""
    sources = [
        write_video(tmp_path / "cut.mp4", scenes([30, 28], 96, 128, seed=1)),
        write_video(tmp_path / "slow.mp4", moving_frames(30, 96, 128, seed=7, step_px=1)),
    ]

    def encode(source: Path) -> bytes:
        with open_video(file_uri(source), MediaLimits()) as video:
            images = [frame.image for frame in video.frames(size_HW=_SIZE_HW, end_frame=17)]
        return encode_mp4(images, _SIZE_HW, Fraction(24), 17, EncodeConfig())

    for source in sources:
        assert len({encode(source) for _ in range(25)}) == 1
