"""Still images come out as an independent reader shows them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.media.config import MediaLimits
from pipeline.media.errors import MediaError
from pipeline.media.image import open_image
from pipeline.media.probe import probe_media
from pipeline.media.uris import file_uri
from tests.media_files import texture

LIMITS = MediaLimits()
PICTURE = Image.fromarray(texture(40, 64))


def shown(path: Path) -> np.ndarray:
    """The picture as Pillow shows it, upright and over white."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGBA")
    background = Image.new("RGBA", image.size, "white")
    background.alpha_composite(image)
    return np.asarray(background.convert("RGB"))


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_orientation_is_undone(value: int, suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    path = tmp_path / f"a.{suffix}"
    options: dict[str, dict[str, Any]] = {
        "jpg": {"quality": 98, "subsampling": 0},
        "webp": {"lossless": True},
    }
    PICTURE.save(path, exif=exif, **options.get(suffix, {}))
    image = open_image(file_uri(path), LIMITS)
    truth = shown(path)
    assert image.shape == truth.shape
    assert np.abs(image.astype(int) - truth).max() <= 6
    probe = probe_media(file_uri(path), LIMITS)
    assert (probe.height, probe.width) == truth.shape[:2]
    assert (probe.media_kind, probe.num_frames) == ("image", 1)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "LA"])
def test_png_modes_are_exact(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture = PICTURE.copy()
    if mode.endswith("A"):
        picture.putalpha(Image.fromarray(texture(40, 64, seed=1)[..., 0]))
    picture.convert(mode).save(path)
    image = open_image(file_uri(path), LIMITS)
    tolerance = 1 if mode.endswith("A") else 0  # both blend and round once
    assert np.abs(image.astype(int) - shown(path)).max() <= tolerance


def test_sixteen_bits_keep_their_high_byte(tmp_path: Path) -> None:
    values = np.linspace(0, 65_535, 40 * 64).reshape(40, 64).astype(np.uint16)
    path = tmp_path / "a.png"
    Image.fromarray(values).save(path)
    image = open_image(file_uri(path), LIMITS)
    assert np.abs(image.astype(int) - (values / 257)[..., None]).max() < 1.5


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 100, "optimize": True}])
def test_cmyk_and_gray_jpegs_are_rgb(options: dict[str, Any], tmp_path: Path) -> None:
    for mode in ("CMYK", "L"):
        path = tmp_path / f"{mode}.jpg"
        PICTURE.convert(mode).save(path, **options)
        assert np.abs(open_image(file_uri(path), LIMITS).astype(int) - shown(path)).max() <= 8


def test_avif_and_bmp_are_read(tmp_path: Path) -> None:
    for name, tolerance in (("a.avif", 8), ("a.bmp", 0)):
        path = tmp_path / name
        PICTURE.save(path, quality=95)
        image = open_image(file_uri(path), LIMITS)
        assert np.abs(image.astype(int) - shown(path)).mean() <= tolerance


@pytest.mark.parametrize("suffix", ["gif", "png"])
def test_animations_are_videos_and_single_frames_images(suffix: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(texture(40, 64, seed=seed)) for seed in range(3)]
    one, many = tmp_path / f"one.{suffix}", tmp_path / f"many.{suffix}"
    frames[0].save(one)
    frames[0].save(many, save_all=True, append_images=frames[1:], duration=100)
    assert probe_media(file_uri(one), LIMITS).media_kind == "image"
    probe = probe_media(file_uri(many), LIMITS)
    assert probe.media_kind == "video"
    assert probe.fps == pytest.approx(10)
    assert np.array_equal(open_image(file_uri(one), LIMITS), shown(one))


def test_animated_webp_is_refused_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    PICTURE.save(path, save_all=True, append_images=[PICTURE.rotate(180)], duration=100)
    with pytest.raises(MediaError, match="animated WebP") as caught:
        probe_media(file_uri(path), LIMITS)
    assert caught.value.error_class == "unsupported_codec"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_cut_off_images_are_refused(suffix: str, share: float, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(texture(200, 300)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(MediaError) as caught:
        open_image(file_uri(path), LIMITS)
    assert caught.value.error_class == "decode_error"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "avif"])
def test_the_pixel_limit_holds_for_every_format(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    PICTURE.save(path)
    with pytest.raises(MediaError, match=r"40 pixels, limit 2000|out of range") as caught:
        open_image(file_uri(path), MediaLimits(max_image_pixels=2000))
    assert caught.value.error_class == "too_many_pixels"
