"""A pool of bad media beside good ones: the job finishes, each entry has its row and its reason."""

import json
import os
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.media.uris import file_uri
from pipeline.pack.verify import verify_manifest
from tests.media_files import moving_frames, texture, write_audio, write_image, write_video
from tests.pipeline.media.test_bad_media import ODD_NAMES, png_header
from tests.walks import curate, manifest, read_rows, write_config, write_pool

# What no frame can be had of, with its reason.
NO_MEDIA = {
    "empty.mp4": "empty_file",
    "page.mp4": "not_media",
    "text.mp4": "not_media",
    "no moov.mp4": "broken_container",
    "list.mp4": "playlist_refused",
    "list.ffconcat.mp4": "playlist_refused",
    "audio only.mp4": "no_video_stream",
    "bomb.png": "too_many_pixels",
    "pipe.mp4": "not_a_file",
    "folder.mp4": "not_a_file",
    "out.mp4": "link_outside_input",
    "dangling.mp4": "link_broken",
    "loop.mp4": "link_loop",
}
# What can be opened: it ends in clips or in a reason of the split.
OPENED = (
    "truncated.mp4",
    "flipped.mp4",
    "one frame.mp4",
    "tiny.mp4",
    "odd.mp4",
    "wide.mp4",
    "black.mp4",
    "noise.mp4",
    "picture.mp4",
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config(tmp_path_factory.mktemp("config"))


@pytest.fixture
def visits() -> Iterator[tuple[str, list[str]]]:
    """A server that no playlist may reach, and the paths that were asked of it."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def write_bad(folder: Path, outside: Path, url: str) -> None:
    def write(name: str, content: bytes) -> None:
        (folder / name).write_bytes(content)

    write("empty.mp4", b"")
    write("page.mp4", b"<!doctype html><html><body>404</body></html>")
    write("text.mp4", b"just some words\n")
    write("list.mp4", f"#EXTM3U\n#EXTINF:9,\n{url}/a.ts\n#EXT-X-ENDLIST\n".encode())
    write("list.ffconcat.mp4", f"ffconcat version 1.0\nfile '{url}/b.mp4'\n".encode())
    write("bomb.png", png_header(30_000, 30_000))
    write_audio(folder / "audio only.mp4")
    whole = write_video(outside / "whole.mp4", moving_frames(40, 96, 128, seed=31)).read_bytes()
    write("no moov.mp4", whole[: whole.index(b"moov")])
    start = {"movflags": "faststart"}
    frames = moving_frames(60, 96, 128, seed=32)
    first = write_video(outside / "start.mp4", frames, container_options=start).read_bytes()
    write("truncated.mp4", first[: len(first) * 2 // 3])
    flipped = bytearray(first)
    for place in range(len(first) // 2, len(first) // 2 + 200):
        flipped[place] ^= 0xA5
    write("flipped.mp4", bytes(flipped))
    write_video(folder / "one frame.mp4", moving_frames(1, 96, 128, seed=33))
    write_video(folder / "tiny.mp4", moving_frames(30, 2, 2, seed=34))
    frames = moving_frames(30, 97, 131, seed=35)
    odd = write_video(outside / "odd.mkv", frames, codec="ffv1", pix_fmt="bgr0")
    write("odd.mp4", odd.read_bytes())
    write_video(folder / "wide.mp4", moving_frames(20, 4, 2048, seed=36))
    write_video(folder / "black.mp4", np.zeros((30, 96, 128, 3), np.uint8))
    noise = np.random.default_rng(0).integers(0, 256, (30, 96, 128, 3), dtype=np.uint8)
    write_video(folder / "noise.mp4", noise)
    picture = write_image(outside / "picture.jpg", texture(96, 128, seed=37))
    write("picture.mp4", picture.read_bytes())
    os.mkfifo(folder / "pipe.mp4")
    (folder / "folder.mp4").mkdir()
    (folder / "dangling.mp4").symlink_to(folder / "absent.mp4")
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    (folder / "around").symlink_to(folder)
    (folder / "out.mp4").symlink_to(outside / "whole.mp4")
    for name in ODD_NAMES:
        path = bytes(folder) + b"/" + name
        Path(path.decode(errors="surrogateescape")).write_bytes(b"no medium " + name)


def samples(output: Path) -> dict[str, tuple[bytes, dict[str, Any]]]:
    """Media bytes and JSON of each packed clip. Cluster and weight speak of the whole pool."""
    members: dict[str, dict[str, bytes]] = {}
    for path in sorted(output.glob("shards/*/*/*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                key, _, suffix = member.name.partition(".")
                members.setdefault(key, {})[suffix] = file.read()
    found = {}
    for key, files in members.items():
        described = json.loads(files["json"])
        del described["cluster"], described["weight"]
        found[key] = (files["mp4"], described)
    return found


def test_bad_media_have_a_reason_and_harm_no_neighbour(
    config: Path, tmp_path: Path, visits: tuple[str, list[str]]
) -> None:
    url, asked = visits
    pool, outside = write_pool(tmp_path / "pool"), tmp_path / "outside"
    outside.mkdir()
    curate(pool, tmp_path / "good", config)
    good = samples(tmp_path / "good")
    assert len(good) == 3

    write_bad(pool, outside, url)
    record = curate(pool, tmp_path / "all", config)
    assert record.verdict == "succeeded"
    assert asked == []
    sources = {row["source_uri"]: row for row in read_rows(tmp_path / "all", "sources")}
    clips: dict[str, list[dict[str, Any]]] = {}
    for row in read_rows(tmp_path / "all", "clips"):
        clips.setdefault(row["source_uri"], []).append(row)

    reasons = {name: sources[file_uri(pool / name)]["error_class"] for name in NO_MEDIA}
    assert reasons == NO_MEDIA
    for odd_name in ODD_NAMES:
        uri = file_uri((bytes(pool) + b"/" + odd_name).decode(errors="surrogateescape"))
        assert (sources[uri]["ok"], sources[uri]["error_class"]) == (False, "not_media")
    for name in OPENED:
        uri = file_uri(pool / name)
        source = sources[uri]
        rows = clips.get(uri, [])
        assert source["error"] or rows, f"{name}: neither a reason nor a clip"
        assert all(row["ok"] or row["error"] for row in rows)
    entries = [path for path in pool.iterdir() if path.name != "around"]
    assert len(sources) == len(entries)

    found = samples(tmp_path / "all")
    assert {key: found.get(key) for key in good} == good
    assert verify_manifest(str(tmp_path / "all/shards/tier-1/manifest.json")).ok
    funnel = manifest(tmp_path / "all")["funnel"]
    accounted = sum(step["num_clips"] for step in funnel["rejected"] + funnel["failed"])
    assert funnel["num_clips"] == funnel["num_packed"] + accounted


def test_a_pool_without_one_good_medium_ends_well(config: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    (pool / "empty.mp4").write_bytes(b"")
    (pool / "text.mp4").write_bytes(b"words\n")
    record = curate(pool, tmp_path / "run", config)
    assert (record.verdict, record.num_sources, record.num_failed_sources) == ("succeeded", 2, 2)
    assert manifest(tmp_path / "run")["shards"] == []
    assert verify_manifest(str(tmp_path / "run/shards/tier-1/manifest.json")).ok
