"""Small real shards: each frame's gray level says which sample and frame it is."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from modeling.data.corpus import ShardCorpus, ShardPlace
from pipeline.pack.config import EncodeConfig
from pipeline.pack.encode import encode_jpeg, encode_mp4
from pipeline.pack.plan import PlannedShard
from pipeline.pack.shard import ShardWriter, index_bytes, shard_entry
from schemas.base import canonical_json
from schemas.caption import StructuredCaption
from schemas.scores import FULL_PICTURE, ClipScores
from schemas.shard import Funnel, ManifestTotals, ShardEntry, ShardManifest, ShardSample
from schemas.source import Provenance
from schemas.tier import Bucket

FPS = 24.0
FAST = EncodeConfig(preset="ultrafast")


def key_of(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


def level(number: int, frame: int) -> int:
    """Gray level of a frame, 4 levels apart from its neighbors."""
    return 30 + (number * 20 + frame * 4) % 180


def frames_of(number: int, bucket: Bucket) -> Iterator[NDArray[np.uint8]]:
    for frame in range(bucket.num_frames):
        yield np.full((bucket.height, bucket.width, 3), level(number, frame), np.uint8)


def media_of(number: int, bucket: Bucket) -> bytes:
    images = frames_of(number, bucket)
    if bucket.num_frames == 1:
        return encode_jpeg(next(images), FAST)
    size = (bucket.height, bucket.width)
    return encode_mp4(images, size, Fraction(24), bucket.num_frames, FAST)


def sample_of(number: int, bucket: Bucket, weight: float = 1.0) -> ShardSample:
    is_image = bucket.num_frames == 1
    return ShardSample(
        clip_id=key_of(number),
        source_uri=f"file:///pool/{number}.mp4",
        source_sha256="0" * 64,
        start_s=0,
        end_s=0 if is_image else bucket.num_frames / FPS,
        media_kind="image" if is_image else "video",
        num_frames=bucket.num_frames,
        fps=None if is_image else FPS,
        height=bucket.height,
        width=bucket.width,
        crop=FULL_PICTURE,
        scores=ClipScores(),
        cluster=0,
        weight=weight,
        camera_movement=None,
        caption=StructuredCaption(captioner="test", short_description=f"Clip {number}"),
        tier="image-1" if is_image else "tier-1",
        provenance=Provenance(tags=("even",) if number % 2 == 0 else ()),
    )


def write_shards(
    folder: Path,
    counts: Mapping[str, int],
    *,
    per_shard: int = 4,
    first_number: int = 0,
    bad: frozenset[int] = frozenset(),
    media: Callable[[int, Bucket], bytes] = media_of,
) -> str:
    """Shards of real media; returns the manifest's path. `bad`: numbers of broken samples."""
    entries, number = [], first_number
    for name, count in counts.items():
        bucket = Bucket.from_name(name)
        (folder / name).mkdir(parents=True)
        numbers = range(number, number + count)
        number += count
        for start in range(0, count, per_shard):
            part = numbers[start : start + per_shard]
            shard = PlannedShard(
                name=f"tier-1-{name}-00000000-{start // per_shard:06d}",
                tier="tier-1",
                bucket=name,
                clip_ids=tuple(key_of(n) for n in part),
            )
            tar = folder / name / f"{shard.name}.tar"
            with tar.open("wb") as file:
                writer = ShardWriter(file, name)
                for n in part:
                    content = b"rubble" * 50 if n in bad else media(n, bucket)
                    writer.add(sample_of(n, bucket), content)
                writer.close()
            index = index_bytes(writer.rows)
            (folder / name / f"{shard.name}.index.parquet").write_bytes(index)
            entries.append(shard_entry(shard, writer.rows, tar, index))
    num_samples = number - first_number
    buckets = {name: Bucket.from_name(name) for name in sorted(counts)}
    manifest = ShardManifest(
        tier="image-1" if all(b.num_frames == 1 for b in buckets.values()) else "tier-1",
        plan="0" * 16,
        captioner="test",
        buckets=tuple(buckets.values()),
        shards=tuple(entries),
        totals=ManifestTotals(
            num_samples=num_samples,
            num_frames=sum(buckets[name].num_frames * count for name, count in counts.items()),
            duration_s=0,
            num_bytes=sum(entry.num_bytes for entry in entries),
        ),
        funnel=Funnel(num_clips=num_samples, num_packed=num_samples, rejected=(), failed=()),
        config_fingerprint="0" * 16,
        weights={},
        tables={},
    )
    path = folder / "manifest.json"
    path.write_text(canonical_json(manifest))
    return str(path)


def edit_manifest(path: str, **changes: object) -> None:
    """Replace top-level values of a manifest."""
    text = json.loads(Path(path).read_text())
    Path(path).write_text(json.dumps({**text, **changes}))


def corpus_of(counts: Mapping[str, int], weights: NDArray[np.float64] | None = None) -> ShardCorpus:
    """A corpus without files: enough for plans."""
    num = sum(counts.values())
    zeros = pa.array(np.zeros(num, np.int64))
    rows = pa.table(
        {
            "key": pa.array([key_of(number) for number in range(num)]),
            **dict.fromkeys(("media_offset", "media_size", "json_offset", "json_size"), zeros),
            "fps": pa.array(np.full(num, FPS)),
            "weight": pa.array(np.ones(num) if weights is None else weights),
        }
    )
    shards = [
        ShardPlace(
            "manifest.json",
            ShardEntry(
                path=f"{name}.tar",
                index_path=f"{name}.index.parquet",
                bucket=name,
                num_samples=count,
                num_bytes=1,
                sha256="",
                index_sha256="",
            ),
            1.0,
        )
        for name, count in counts.items()
    ]
    return ShardCorpus([], shards, rows, "test")
