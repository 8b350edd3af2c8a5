"""What is in a manifest: totals, buckets, shards, a histogram of each score, the first samples."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.pack.contents import manifest_samples, shard_index
from pipeline.pack.manifest import read_manifest
from pipeline.pack.verify import split_manifest_location
from pipeline.tier.scores import SCORE_PATHS
from schemas.scores import ClipScores
from schemas.shard import ShardManifest, ShardSample

_NUM_BINS = 16


@dataclass(frozen=True, slots=True)
class BucketTotal:
    bucket: str
    num_shards: int
    num_samples: int
    num_frames: int
    duration_s: float
    num_bytes: int


@dataclass(frozen=True, slots=True)
class ScoreHistogram:
    """Counts in equal bins from `low` to `high`; `num_values` may be less than the samples."""

    score: str
    num_values: int
    low: float
    median: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Inspection:
    manifest: ShardManifest
    buckets: tuple[BucketTotal, ...]
    histograms: tuple[ScoreHistogram, ...]
    first: tuple[ShardSample, ...]


def inspect_manifest(location: str, *, num_rows: int = 3) -> Inspection:
    """Reads every index and every sample's JSON, no media."""
    folder, name = split_manifest_location(location)
    manifest = read_manifest(folder, name)
    values: dict[str, list[float]] = {score: [] for score in SCORE_PATHS}
    for sample in manifest_samples(folder, manifest):
        for score, value in score_values(sample.scores):
            values[score].append(value)
    buckets = []
    for bucket in manifest.buckets:
        entries = [entry for entry in manifest.shards if entry.bucket == bucket.name]
        rows = [row for entry in entries for row in shard_index(folder, entry)]
        buckets.append(
            BucketTotal(
                bucket.name,
                len(entries),
                len(rows),
                sum(row.num_frames for row in rows),
                sum(row.num_frames / row.fps for row in rows if row.fps),
                sum(entry.num_bytes for entry in entries),
            )
        )
    histograms = tuple(_histogram(score, found) for score, found in values.items() if found)
    first = tuple(itertools.islice(manifest_samples(folder, manifest), num_rows))
    return Inspection(manifest, tuple(buckets), histograms, first)


def score_values(scores: ClipScores) -> Iterator[tuple[str, float]]:
    """Every number that the clip has, by its path."""
    for path in SCORE_PATHS:
        stage, _, name = path.partition(".")
        result = getattr(scores, stage)
        value = None if result is None else getattr(result, name)
        if value is not None:
            yield path, float(value)


def _histogram(score: str, values: list[float]) -> ScoreHistogram:
    counts, _ = np.histogram(values, bins=_NUM_BINS)
    low, high = float(min(values)), float(max(values))
    return ScoreHistogram(
        score, len(values), low, float(np.median(values)), high, tuple(counts.tolist())
    )
