"""Broken, misleading and hostile files: each has its reason, and what is good of them is kept."""

import resource
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from pipeline.media.config import MediaLimits
from pipeline.media.errors import MediaError, to_failure
from pipeline.media.image import open_image
from pipeline.media.probe import probe_media
from pipeline.media.uris import file_uri
from pipeline.media.video import open_video
from tests.media_files import (
    moving_frames,
    numbered_frames,
    read_number,
    texture,
    write_audio,
    write_image,
    write_video,
)

LIMITS = MediaLimits()
FASTSTART = {"movflags": "faststart"}


def error_class_of(path: Path) -> str:
    with pytest.raises(MediaError) as caught:
        probe_media(file_uri(path), LIMITS)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    return caught.value.error_class


def frames_before_damage(path: Path) -> tuple[list[int], str]:
    numbers: list[int] = []
    with pytest.raises(MediaError) as caught, open_video(file_uri(path), LIMITS) as reader:
        numbers.extend(read_number(frame.image) for frame in reader.frames())
    return numbers, caught.value.error_class


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" * 64))


@pytest.mark.parametrize(
    ("content", "error_class"),
    [
        (b"", "empty_file"),
        (b"\0", "not_media"),
        (b"<!doctype html><html><body>404</body></html>", "not_media"),
        (b"just some words\n", "not_media"),
        (b"%PDF-1.7\n", "not_media"),
        (b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2" + bytes(100), "broken_container"),
        (b"\x1aE\xdf\xa3" + bytes(50), "broken_container"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "decode_error"),
        (png_header(30_000, 30_000), "too_many_pixels"),
        (b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(20), "too_many_pixels"),
        (b"YUV4MPEG2 W30000 H30000 F25:1 Ip C420\nFRAME\n" + bytes(99), "broken_container"),
        (b"BM" + bytes(16) + struct.pack("<ii", 30_000, -30_000) + bytes(30), "too_many_pixels"),
    ],
)
def test_no_medium_at_all(content: bytes, error_class: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    assert error_class_of(path) == error_class


def test_an_image_bomb_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(30_000, 30_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(MediaError, match="30000 x 30000") as caught:
        open_image(file_uri(path), LIMITS)
    assert caught.value.error_class == "too_many_pixels"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".mpd", ".ffconcat", ".png"])
@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
        "\ufeff\n#EXTM3U\n{target}\n",
        "ffconcat version 1.0\nfile '{target}'\n",
        "# comment\nffconcat version 1.0\nfile {target}\n",
        "file '{target}'\n",
        '<?xml version="1.0"?>\n<MPD><BaseURL>{target}</BaseURL></MPD>',
        "<SmoothStreamingMedia><StreamIndex Url='{target}'/></SmoothStreamingMedia>",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    ],
)
def test_playlists_are_never_followed(playlist: str, suffix: str, tmp_path: Path) -> None:
    # A good target: whoever follows the playlist gets frames instead of an error.
    target = write_video(tmp_path / "target.mp4", moving_frames(3))
    path = tmp_path / f"list{suffix}"
    path.write_text(playlist.format(target=target))
    is_known = playlist.lstrip("\ufeff\n").startswith(("#EXTM3U", "ffconcat", "<", "v=0"))
    assert error_class_of(path) == ("playlist_refused" if is_known else "not_media")


def test_no_moov(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_frames(30))
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov")])  # the index is written last
    assert error_class_of(path) == "broken_container"


def test_frames_before_a_cut_are_kept(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(60), container_options=FASTSTART)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + (len(data) - data.index(b"mdat")) // 2])
    assert probe_media(file_uri(path), LIMITS).num_frames == 60
    numbers, error_class = frames_before_damage(path)
    assert error_class == "decode_error"
    assert numbers == list(range(len(numbers)))
    assert 15 < len(numbers) < 45


def test_a_container_that_just_stops_is_told_from_a_whole_one(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", numbered_frames(100))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    numbers, error_class = frames_before_damage(path)
    assert error_class == "ended_early"
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 20


def test_flipped_bytes_end_the_good_frames(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (24, 96, 128, 3), dtype=np.uint8)
    path = write_video(tmp_path / "a.mp4", frames, container_options=FASTSTART, gop=24)
    with open_video(file_uri(path), LIMITS) as reader:
        whole = [frame.image for frame in reader.frames()]
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + int((len(data) - data.index(b"mdat")) * 0.3)
    for place in range(start, start + 30):  # within a coded picture: its framing stays whole
        data[place] ^= 0xA5
    path.write_bytes(data)
    images: list[np.ndarray] = []
    with pytest.raises(MediaError) as caught, open_video(file_uri(path), LIMITS) as reader:
        images.extend(frame.image for frame in reader.frames())
    assert caught.value.error_class == "decode_error"
    assert 4 < len(images) < 12
    assert np.array_equal(np.stack(images), np.stack(whole[: len(images)]))


def test_a_clip_before_the_damage_can_still_be_read(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(96), container_options=FASTSTART)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])
    with open_video(file_uri(path), LIMITS) as reader:
        for start in (0, 30, 12):
            span = reader.frames(start=(start, start / 24), end_frame=start + 12)
            assert [read_number(f.image) for f in span] == list(range(start, start + 12))
        with pytest.raises(MediaError) as caught:
            list(reader.frames(start=(90, 90 / 24), end_frame=96))
        assert caught.value.error_class == "decode_error"


def test_a_recording_whose_start_is_torn_loses_only_its_start(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", numbered_frames(60), container_options=FASTSTART)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start : start + 900] = bytes(900)
    path.write_bytes(data)
    with open_video(file_uri(path), LIMITS) as reader:
        frames = list(reader.frames())
    numbers = [read_number(frame.image) for frame in frames]
    assert numbers == list(range(numbers[0], 60))
    assert 0 < numbers[0] <= 24
    assert (frames[0].index, frames[0].time_s) == (0, 0.0)


def test_audio_without_pictures(tmp_path: Path) -> None:
    assert error_class_of(write_audio(tmp_path / "a.mp4")) == "no_video_stream"


def test_a_jpeg_named_mp4_is_an_image_and_a_video_named_jpg_a_video(tmp_path: Path) -> None:
    picture = write_image(tmp_path / "a.jpg", texture(32, 48)).rename(tmp_path / "picture.mp4")
    video = write_video(tmp_path / "a.mp4", moving_frames(5)).rename(tmp_path / "video.jpg")
    assert probe_media(file_uri(picture), LIMITS).media_kind == "image"
    assert open_image(file_uri(picture), LIMITS).shape == (32, 48, 3)
    assert probe_media(file_uri(video), LIMITS).media_kind == "video"
    with pytest.raises(MediaError) as caught, open_video(file_uri(picture), LIMITS):
        pass
    assert caught.value.error_class == "wrong_kind"


@pytest.mark.parametrize(
    ("height", "width", "num_frames"),
    [(48, 64, 1), (2, 2, 5), (17, 33, 5), (4, 4096, 3), (2048, 2, 3)],
)
def test_unusual_sizes_are_read_as_they_are(
    height: int, width: int, num_frames: int, tmp_path: Path
) -> None:
    frames = np.random.default_rng(0).integers(
        0, 256, (num_frames, height, width, 3), dtype=np.uint8
    )
    path = write_video(tmp_path / "a.mkv", frames, codec="ffv1", pix_fmt="bgr0")
    probe = probe_media(file_uri(path), LIMITS)
    assert (probe.height, probe.width) == (height, width)
    with open_video(file_uri(path), LIMITS) as reader:
        images = [frame.image for frame in reader.frames()]
        small = [frame.image for frame in reader.frames(size_HW=(16, 16), pix_fmt="gray")]
    assert np.array_equal(np.stack(images), frames)  # lossless: exactly what was written
    assert [image.shape for image in small] == [(16, 16)] * num_frames


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((5, 48, 64, 3), np.uint8),
        np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8),
    ],
    ids=["black", "noise"],
)
def test_black_and_noise_are_good_media(frames: np.ndarray, tmp_path: Path) -> None:
    uri = file_uri(write_video(tmp_path / "a.mp4", frames))
    assert probe_media(uri, LIMITS).num_frames == 5


ODD_NAMES: list[bytes] = [
    b"with space.mp4",
    b"new\nline.mp4",
    "Grün 影 ‮.mp4".encode(),
    b"not-utf8-\xff\xfe.mp4",
    b"-dash.mp4",
    b"..dots..mp4",
    b"a;rm -rf $HOME `id` & 'x' \"y\" | * ?.mp4",
    b"frame%03d.mp4",
    b"http:host#f?q=1.mp4",
    b"concat:a|b.mp4",
    b"x" * 246 + b".mp4",
]


@pytest.mark.parametrize("name", ODD_NAMES, ids=range(len(ODD_NAMES)))
def test_odd_names_are_only_names(
    name: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    target = write_video(tmp_path / "target.mp4", moving_frames(3))
    path = bytes(tmp_path) + b"/" + name
    Path(path.decode(errors="surrogateescape")).write_bytes(target.read_bytes())
    uri = file_uri(path.decode(errors="surrogateescape"))
    assert uri.isascii()
    assert "\n" not in uri
    assert probe_media(uri, LIMITS).num_frames == 3


def test_reasons_become_rows(tmp_path: Path) -> None:
    failure = to_failure(MediaError("not_media", "a.mp4:\nno"))
    assert (failure.error_class, failure.error) == ("not_media", "a.mp4: no")


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    import os

    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    start_s = time.monotonic()
    assert error_class_of(pipe) == "not_a_file"
    assert error_class_of(tmp_path) == "not_a_file"
    assert error_class_of(tmp_path / "absent.mp4") == "not_found"
    assert time.monotonic() - start_s < 1


def test_long_sources_are_not_gathered_in_memory(tmp_path: Path) -> None:
    import psutil

    one = write_video(tmp_path / "a.mkv", moving_frames(24, 360, 640), gop=24)
    path = looped(one, tmp_path / "long.mkv", num_loops=40)
    process = psutil.Process()
    with open_video(file_uri(path), LIMITS) as reader:
        sizes = [
            process.memory_info().rss
            for frame in reader.frames(size_HW=(36, 64))
            if frame.index % 120 == 119
        ]
    assert len(sizes) == 8
    # 700 decoded frames would take 240 MB.
    assert max(sizes[1:]) - sizes[0] < 20_000_000


def looped(path: Path, target: Path, *, num_loops: int) -> Path:
    """The same packets over and over, with their times moved on."""
    import av

    with av.open(str(target), "w") as output, av.open(str(path)) as first:
        stream = output.add_stream_from_template(first.streams.video[0])
        for loop in range(num_loops):
            with av.open(str(path)) as source:
                for packet in source.demux(video=0):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.pts += loop * 1000
                    packet.dts += loop * 1000
                    packet.stream = stream
                    output.mux(packet)
    return target
