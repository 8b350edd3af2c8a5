"""Remote sources: fetched once, bounded, cleaned up. File URIs: any bytes there and back."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.media import fetch
from pipeline.media.config import MediaLimits
from pipeline.media.errors import MediaError
from pipeline.media.uris import file_uri, path_of
from pipeline.media.video import open_video
from tests.media_files import moving_frames, write_video

LIMITS = MediaLimits()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A remote pool of three videos, and the folder that temporary copies go to."""
    video = write_video(tmp_path / "a.mp4", moving_frames(12))
    memory = fsspec.filesystem("memory")
    for name in ("a b.mp4", "b[1].mp4", "c.mp4"):
        memory.pipe(f"/pool/{name}", video.read_bytes())
    copies = tmp_path / "copies"
    copies.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(copies))
    fetch.clear_fetched()
    yield copies
    fetch.clear_fetched()
    memory.rm("/pool", recursive=True)
    assert list(copies.iterdir()) == []


def test_clips_of_one_source_fetch_it_once(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    real_fetch = fetch._fetch

    def note(uri: str, limits: MediaLimits) -> Path:
        fetched.append(uri)
        return real_fetch(uri, limits)

    monkeypatch.setattr(fetch, "_fetch", note)
    for uri in ("memory://pool/a b.mp4", "memory://pool/a b.mp4", "memory://pool/b[1].mp4"):
        with open_video(uri, LIMITS) as reader:
            assert sum(1 for _ in reader.av_frames()) == 12
    assert fetched == ["memory://pool/a b.mp4", "memory://pool/b[1].mp4"]


def test_old_copies_make_room_for_new_ones(store: Path) -> None:
    for name in ("a b.mp4", "b[1].mp4", "c.mp4"):
        with fetch.local_path(f"memory://pool/{name}", LIMITS) as path:
            assert path.exists()
    assert len(list(store.iterdir())) == 2


def test_a_copy_in_use_stays(store: Path) -> None:
    with fetch.local_path("memory://pool/a b.mp4", LIMITS) as first:
        for name in ("b[1].mp4", "c.mp4"):
            with fetch.local_path(f"memory://pool/{name}", LIMITS):
                pass
        assert first.exists()


def test_an_object_over_the_limit_leaves_nothing_behind(store: Path) -> None:
    limits = MediaLimits(max_num_bytes=100)
    with pytest.raises(MediaError) as caught, fetch.local_path("memory://pool/c.mp4", limits):
        pass
    assert caught.value.error_class == "too_many_bytes"
    assert list(store.iterdir()) == []


@pytest.mark.parametrize(
    ("uri", "error_class"),
    [("memory://pool/none.mp4", "not_found"), ("nosuch://a/b.mp4", "fetch_failed")],
)
def test_what_cannot_be_fetched_says_so(uri: str, error_class: str, store: Path) -> None:
    with pytest.raises(MediaError, match=r"\.mp4") as caught, fetch.local_path(uri, LIMITS):
        pass
    assert caught.value.error_class == error_class
    assert list(store.iterdir()) == []


@given(st.binary(min_size=1, max_size=60).filter(lambda name: b"\0" not in name))
def test_any_name_survives_its_uri(name: bytes) -> None:
    path = b"/" + name.replace(b"/", b"_").lstrip(b".") + b"x"
    uri = file_uri(os.fsdecode(path))
    assert uri.isascii()
    assert os.fsencode(path_of(uri)) == path


def test_a_uri_of_another_host_is_refused() -> None:
    with pytest.raises(ValueError, match="another host"):
        path_of("file://server/a.mp4")
