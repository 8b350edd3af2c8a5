"""Samples per second and core from shards against bare decoding, and the time to resume.

    python benchmarks/loader.py decode MANIFEST [--samples 24] [--area-side 256]
    python benchmarks/loader.py resume [--samples 1000000]

`decode` compares, per sample: decoding alone (PyAV, one thread, frames thrown away), decoding to
RGB arrays by each decoder, and the whole loader (reading, checking, decoding, captions, batches).
Rates are per second of processor time, so that they hold on a busy machine; the walls beside them
are of this machine as it was. `resume` writes an index of that many samples to a temporary folder,
with empty shards of the right size, and times what a restart does before its first read.
"""

import argparse
import hashlib
import io
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from modeling.data.batch_size import PlanConfig
from modeling.data.corpus import ShardCorpus
from modeling.data.decode import Decoder, frame_decoder
from modeling.data.files import RangeReader
from modeling.data.loader import DataLoaderConfig, SampleLoader
from modeling.data.plan import EpochPlan
from modeling.data.view import View, ViewConfig
from schemas.base import canonical_json
from schemas.shard import Funnel, ManifestTotals, ShardEntry, ShardManifest
from schemas.tier import Bucket

SAMPLES_PER_SHARD = 1000
NUM_RUNS = 3
BUCKETS = ("f001_256x256", "f033_256x256", "f033_192x336", "f065_256x256", "f129_192x336")


def timed(name: str, num_samples: int, num_frames: int, work: Callable[[], object]) -> float:
    """Print one row, the best of a few runs; returns samples per second of processor time."""
    runs = []
    for _ in range(NUM_RUNS):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        runs.append((time.process_time() - cpu, time.perf_counter() - wall))
    cpu, wall = min(runs)
    rate = num_samples / cpu
    print(
        f"| {name} | {rate:.2f} | {num_frames / cpu:.0f} | {num_samples / wall:.2f} |", flush=True
    )
    return rate


def bare_decode(members: list[bytes]) -> None:
    for media in members:
        with av.open(io.BytesIO(media), "r") as container:
            container.streams.video[0].thread_type = "NONE"
            for _ in container.decode(container.streams.video[0]):
                pass


def decode_members(members: list[bytes], views: list[View], decoder: Decoder) -> None:
    decode = frame_decoder(decoder)
    for media, view in zip(members, views, strict=True):
        shape = view.shape
        decode(media, view, np.empty((shape.num_frames, shape.height, shape.width, 3), np.uint8))


def run_loader(loader: SampleLoader, num_steps: int) -> None:
    for _ in itertools.islice(loader.batches(), num_steps):
        pass


def measure_decoding(manifest: str, num_samples: int, area_side: int | None) -> None:
    torch.set_num_threads(1)
    corpus = ShardCorpus.open([manifest])
    view = ViewConfig(area_side=area_side)
    plan_config = PlanConfig(global_batch=1, use_balance_weights=False)
    plan = EpochPlan(corpus, plan_config, 0, view)
    num_samples = min(num_samples, plan.num_steps)
    indices = [int(plan.step(number).sample_indices[0]) for number in range(num_samples)]
    files, places = RangeReader(), [corpus.place(index) for index in indices]
    members = [files.read(p.shard, p.media_offset, p.media_size) for p in places]
    views = [view.draw(p.bucket, seed=0, key=p.key, step=0) for p in places]
    num_frames = sum(len(v.frames) for v in views)
    print(f"{num_samples} samples, {num_frames} frames, area side {area_side or 'as stored'}\n")
    print("| | samples per CPU-second | frames per CPU-second | samples per second (wall) |")
    print("|---|---|---|---|")
    bare = timed("decoding alone", num_samples, num_frames, lambda: bare_decode(members))
    rates: dict[str, float] = {}
    decoders: tuple[Decoder, ...] = ("pyav", "decord")
    for decoder in decoders:
        timed(
            f"to RGB arrays, {decoder}",
            num_samples,
            num_frames,
            lambda decoder=decoder: decode_members(members, views, decoder),  # type: ignore[misc]
        )
    for decoder, num_threads in itertools.product(decoders, (1, 2)):
        # Nothing is read ahead, so that exactly the samples counted are decoded.
        config = DataLoaderConfig(decoder=decoder, num_threads=num_threads, prefetch_steps=1)
        loader = SampleLoader(corpus, plan_config, view=view, config=config)
        name = f"loader, {decoder}, {num_threads} thread{'s' * (num_threads > 1)}"
        rates[name] = timed(
            name,
            num_samples,
            num_frames,
            lambda loader=loader: run_loader(loader, num_samples - 1),  # type: ignore[misc]
        )
        loader.close()
    print("\nshare of bare decoding's rate per core:")
    for name, rate in rates.items():
        print(f"* {name}: {rate / bare:.0%}")


def write_index(folder: Path, num_samples: int) -> str:
    """Indexes without media: the tars are holes of the right size."""
    entries = []
    for shard in range(num_samples // SAMPLES_PER_SHARD):
        name = BUCKETS[shard % len(BUCKETS)]
        bucket, num = Bucket.from_name(name), SAMPLES_PER_SHARD
        offset = np.arange(num) * 4096
        table = pa.table(
            {
                "key": pa.array(
                    [hashlib.md5(f"{shard}:{n}".encode()).hexdigest() for n in range(num)]
                ),
                "media_offset": pa.array(offset),
                "media_size": pa.array([2048] * num),
                "json_offset": pa.array(offset + 2048),
                "json_size": pa.array([1024] * num),
                "num_frames": pa.array([bucket.num_frames] * num),
                "height": pa.array([bucket.height] * num),
                "width": pa.array([bucket.width] * num),
                "fps": pa.array([24.0] * num),
                "bucket": pa.array([name] * num),
                "weight": pa.array(np.random.default_rng(shard).uniform(0.3, 3.0, num)),
            }
        )
        index, tar = folder / f"{shard:06d}.index.parquet", folder / f"{shard:06d}.tar"
        pq.write_table(table, index, compression="zstd")
        with tar.open("wb") as file:
            file.truncate(num * 4096)
        entries.append(
            ShardEntry(
                path=tar.name,
                index_path=index.name,
                bucket=name,
                num_samples=num,
                num_bytes=num * 4096,
                sha256="0" * 64,
                index_sha256=hashlib.sha256(index.read_bytes()).hexdigest(),
            )
        )
    total = len(entries) * SAMPLES_PER_SHARD
    manifest = ShardManifest(
        tier="tier-1",
        plan="0" * 16,
        captioner="none",
        buckets=tuple(Bucket.from_name(name) for name in sorted(BUCKETS)),
        shards=tuple(entries),
        totals=ManifestTotals(
            num_samples=total,
            num_frames=sum(Bucket.from_name(e.bucket).num_frames * e.num_samples for e in entries),
            duration_s=0,
            num_bytes=sum(entry.num_bytes for entry in entries),
        ),
        funnel=Funnel(num_clips=total, num_packed=total, rejected=(), failed=()),
        config_fingerprint="0" * 16,
        weights={},
        tables={},
    )
    (folder / "manifest.json").write_text(canonical_json(manifest))
    return str(folder / "manifest.json")


def measure_resume(num_samples: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        manifest, cache = write_index(Path(folder), num_samples), Path(folder, "cache")
        print(f"{num_samples} samples, {num_samples // SAMPLES_PER_SHARD} shards\n")
        print("| start | indexes | epoch plan | finding the step | together | processor time |")
        print("|---|---|---|---|---|---|")
        for name in ("first", "again", "again", "again"):
            start, cpu = time.perf_counter(), time.process_time()
            corpus = ShardCorpus.open([manifest], cache=cache)
            opened = time.perf_counter()
            plan = EpochPlan(corpus, PlanConfig(global_batch=64), epoch=7)
            planned = time.perf_counter()
            for index in plan.step(plan.num_steps // 2).sample_indices.tolist():
                corpus.place(index)
            ended = time.perf_counter()
            cpu = time.process_time() - cpu
            spans = (opened - start, planned - opened, ended - planned, ended - start, cpu)
            print(f"| {name} | " + " | ".join(f"{span:.3f} s" for span in spans) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    decode = commands.add_parser("decode")
    decode.add_argument("manifest")
    decode.add_argument("--samples", type=int, default=24)
    decode.add_argument("--area-side", type=int)
    resume = commands.add_parser("resume")
    resume.add_argument("--samples", type=int, default=1_000_000)
    options = parser.parse_args()
    if options.command == "decode":
        measure_decoding(options.manifest, options.samples, options.area_side)
    else:
        measure_resume(options.samples)


if __name__ == "__main__":
    main()
