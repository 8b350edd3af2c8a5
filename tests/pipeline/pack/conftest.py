"""A small output on disk: real videos and a picture, hand-made scores, packed by hand or helper."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.caption.config import CaptionConfig
from pipeline.caption.measured import measured_caption
from pipeline.media.config import MediaLimits
from pipeline.pack.config import EncodeConfig, PackConfig
from pipeline.pack.manifest import build_manifest, num_failed_clips, write_manifest
from pipeline.pack.plan import ShardPlan, make_plan
from pipeline.pack.select import select_jobs, selected_clip_ids
from pipeline.pack.worker import PackWorker, pack_parts
from pipeline.storage import Store
from pipeline.tier.config import TiersConfig, load_tiers
from pipeline.tier.funnel import funnel_counts
from pipeline.tier.join import load_joined
from pipeline.tier.records import read_records
from pipeline.tier.rules import Candidates, decide
from schemas.shard import ShardManifest
from schemas.tier import TierName
from tests.media_files import moving_frames, texture, write_image, write_video
from tests.pipeline.tier.tables import ClipMaker

SMALL = ("tier-1.size=[32, 32]", "tier-1.frames=[5, 9]", "image-1.size=[32, 32]")
PACK = PackConfig(max_samples_per_shard=2, encode=EncodeConfig(preset="ultrafast"))


@dataclass
class Output:
    """One output and the tables that its maker wrote."""

    store: Store
    tables: dict[str, str]
    tiers: TiersConfig
    pack: PackConfig = PACK
    num_at_once: int = 1

    def plan(self, tier: TierName = "tier-1") -> ShardPlan:
        joined = load_joined(self.store, self.tables)
        decisions = decide(Candidates(joined), self.tiers, tier)
        records = list(read_records(self.store, self.tables, selected_clip_ids(joined, decisions)))
        captions = {
            record.clip.clip_id: measured_caption(record, CaptionConfig()) for record in records
        }
        selection = select_jobs(joined, decisions, records, captions)
        return make_plan(self.store, tier, selection.jobs, self.pack)

    def worker(self, plan: ShardPlan) -> PackWorker:
        worker = PackWorker(
            self.store.location,
            plan.plan,
            self.pack.encode,
            MediaLimits(),
            num_at_once=self.num_at_once,
        )
        worker.setup()
        return worker

    def run(self, tier: TierName = "tier-1") -> ShardManifest:
        """Plan, pack and write the manifest."""
        plan = self.plan(tier)
        worker = self.worker(plan)
        for part in pack_parts(self.store, plan):
            worker.process(part)
        joined = load_joined(self.store, self.tables)
        decisions = decide(Candidates(joined), self.tiers, tier)
        later = {"no_pack": num_failed_clips(self.store, plan)}
        manifest = build_manifest(
            self.store,
            plan,
            captioner="measured",
            funnel=funnel_counts(decisions, later),
            config_fingerprint="0" * 16,
            weights={},
            tables=self.tables,
        )
        write_manifest(self.store, manifest)
        return manifest

    def path(self, relative: str) -> Path:
        return Path(self.store.full(relative))

    def files(self) -> dict[str, bytes]:
        """Everything below `shards`, by path."""
        root = self.path("shards")
        return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def pool(folder: Path) -> ClipMaker:
    """Three clips of a wide film, one of a square one, one too short, a picture."""
    maker = ClipMaker()
    wide = write_video(folder / "wide.mp4", moving_frames(36, 48, 96, seed=1))
    square = write_video(folder / "square.mp4", moving_frames(12, 48, 48, seed=2), fps=30)
    picture = write_image(folder / "picture.png", texture(64, 64, seed=3))
    for start in (0, 12, 24):
        add(maker, wide, start=start, num_frames=12, size_WH=(96, 48), tags=("nature",))
    add(maker, square, num_frames=7, fps=30.0, size_WH=(48, 48))
    add(maker, square, start=7, num_frames=4, fps=30.0, size_WH=(48, 48))
    add(maker, picture, image=True, size_WH=(64, 64))
    return maker


def add(maker: ClipMaker, path: Path, **options: object) -> str:
    """A clip of a file that exists."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return maker.add(source=path.stem, uri=path.as_uri(), sha256=sha256, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def media_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pool")


@pytest.fixture
def make_output(tmp_path: Path, media_folder: Path) -> Callable[..., Output]:
    """Outputs over the same pool; each call is another empty folder."""

    def make(name: str = "out", maker: ClipMaker | None = None) -> Output:
        store = Store(str(tmp_path / name))
        tables = (maker or pool(media_folder)).write(store)
        return Output(store, tables, load_tiers(overrides=SMALL))

    return make
