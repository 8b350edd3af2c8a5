"""A small pool and a small config for tests of the whole walk."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console

from pipeline.cli.run import RunRequest, run_curation
from pipeline.run_record import RunRecord, read_run_record
from pipeline.storage import TEMPORARY_SUFFIX, Store
from schemas.tier import TierName
from tests.media_files import moving_frames, scenes, texture, write_image, write_video

SMALL_CONFIG = """
[split]
min_clip_s = 0.5
max_clip_s = 2.0
transnet = "off"

[corpus.duplicates]
enabled = false  # smooth random textures look alike

[pack]
max_samples_per_shard = 2

[tiers.tier-1]
size = [64, 64]
frames = [9, 17]
limits = {}

[tiers.image-1]
size = [64, 64]
frames = [1]
limits = {}
"""


def write_config(folder: Path) -> Path:
    path = folder / "small.toml"
    path.write_text(SMALL_CONFIG)
    return path


def write_pool(folder: Path) -> Path:
    """Three videos (one with a cut, one a copy of another) and one image."""
    folder.mkdir(parents=True, exist_ok=True)
    write_video(folder / "two shots.mp4", scenes([30, 28], 96, 128, seed=1))
    write_video(folder / "one shot.mp4", moving_frames(30, 96, 128, seed=7, step_px=1))
    (folder / "z copy.mp4").write_bytes((folder / "one shot.mp4").read_bytes())
    write_image(folder / "photo.png", texture(96, 128, seed=9))
    return folder


def request(
    pool: Path,
    output: Path,
    config: Path,
    *,
    tiers: tuple[TierName, ...] = ("tier-1",),
    exclude: Path | None = None,
    overrides: tuple[str, ...] = (),
    engine: str = "inline",
) -> RunRequest:
    return RunRequest.make(
        tiers=tiers,
        inputs=[str(pool)],
        output=str(output),
        config_path=config,
        overrides=overrides,
        engine=engine,
        exclude=exclude,
    )


def curate(pool: Path, output: Path, config: Path, **options: Any) -> RunRecord:
    run_curation(request(pool, output, config, **options), Console(quiet=True))
    return read_run_record(Store(str(output)))


def read_rows(output: Path, step: str) -> list[dict[str, Any]]:
    return [
        row
        for part in sorted(output.glob(f"tables/{step}/*/part-*.parquet"))
        for row in pq.read_table(part).to_pylist()
    ]


def shard_bytes(output: Path) -> dict[str, bytes]:
    """Every file below `shards/`, by its path, but what a kill left half written."""
    root = output / "shards"
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.suffix != TEMPORARY_SUFFIX
    }


def manifest(output: Path, tier: str = "tier-1") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "shards" / tier / "manifest.json").read_text())
    return found
