import gc
import itertools
import logging
import os
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from torch import Tensor

from modeling.caption_text import CaptionTextConfig
from modeling.data.batch_size import PlanConfig
from modeling.data.corpus import ShardCorpus
from modeling.data.decode import Decoder, frame_decoder
from modeling.data.decode_pyav import decode_by_pyav
from modeling.data.errors import DataError
from modeling.data.loader import Batch, DataLoaderConfig, SampleLoader
from modeling.data.pixel_reader import PixelReader
from modeling.data.plan import PlanState
from modeling.data.samples import ReadSample, SampleRequest
from modeling.data.view import View, ViewConfig
from schemas.caption import StructuredCaption
from schemas.shard import ShardSample
from schemas.tier import Bucket
from tests.modeling.data.shards import key_of, level, media_of, write_shards

COUNTS = {"f001_32x32": 12, "f017_32x48": 9, "f033_32x32": 6}
NUM = sum(COUNTS.values())
CONFIG = DataLoaderConfig(num_threads=2)
EVERY_TEXT = CaptionTextConfig(drop_text=0)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("shards"), COUNTS)


@pytest.fixture(scope="module")
def corpus(manifest: str) -> ShardCorpus:
    return ShardCorpus.open([manifest], verify="full")


def first_batches(
    corpus: ShardCorpus,
    num: int,
    *,
    rank: int = 0,
    world_size: int = 1,
    state: PlanState | None = None,
    config: DataLoaderConfig = CONFIG,
    view: ViewConfig | None = None,
    captions: CaptionTextConfig | None = None,
    plan: PlanConfig | None = None,
) -> list[Batch]:
    loader = SampleLoader(
        corpus,
        plan or PlanConfig(global_batch=4, batch_multiple=4, small_buckets="repeat"),
        view=view,
        config=config,
        captions=captions,
        rank=rank,
        world_size=world_size,
    )
    try:
        return list(itertools.islice(loader.batches(state), num))
    finally:
        loader.close()


def assert_same(found: list[Batch], wanted: list[Batch]) -> None:
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert (a.step, a.keys, a.draw_keys, a.captions) == (
            b.step,
            b.keys,
            b.draw_keys,
            b.captions,
        )
        assert torch.equal(a.pixels_BCTHW, b.pixels_BCTHW)
        assert torch.equal(a.fps_B, b.fps_B)
        assert a.next_state == b.next_state


def number_of(key: str) -> int:
    return [key_of(number) for number in range(NUM)].index(key)


# The package leaves it to the garbage collector to close the files that it opened.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_webdataset_package_reads_the_same_samples(manifest: str, corpus: ShardCorpus) -> None:
    tars = sorted(str(path) for path in Path(manifest).parent.rglob("*.tar"))
    members = {
        sample["__key__"]: sample
        for sample in webdataset.WebDataset(tars, shardshuffle=False, empty_check=False)
    }
    gc.collect()
    assert len(members) == len(corpus) == NUM
    view = ViewConfig()
    for batch in first_batches(corpus, 6, captions=EVERY_TEXT):
        for position, key in enumerate(batch.keys):
            sample = members[key]
            described = ShardSample.model_validate_json(sample["json"])
            assert described.clip_id == key
            assert str(described.caption.short_description) in batch.captions[position]
            drawn = view.draw(batch.bucket, seed=0, key=key, step=0)
            wanted = np.empty((*batch.pixels_BCTHW.shape[2:], 3), np.uint8)
            decode_by_pyav(sample["jpg" if batch.is_image else "mp4"], drawn, wanted)
            found = batch.pixels_BCTHW[position].permute(1, 2, 3, 0).numpy()
            assert np.array_equal(found, wanted)


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_frames_are_those_that_the_view_draws(corpus: ShardCorpus, decoder: str) -> None:
    if decoder == "decord":
        pytest.importorskip("decord")
    view = ViewConfig(
        max_frames=5, area_side=32, crop_side=16, placement="random", max_frame_interval=4
    )
    config = CONFIG.model_copy(update={"decoder": decoder})
    intervals = set()
    for batch in first_batches(corpus, 14, view=view, config=config):
        assert batch.pixels_BCTHW.shape[-2:] == (16, 16)
        for position, key in enumerate(batch.keys):
            number = number_of(key)
            source = Bucket.from_name(list(COUNTS)[0 if number < 12 else 1 if number < 21 else 2])
            drawn = view.draw(source, seed=0, key=batch.draw_keys[position], step=batch.step)
            wanted = [level(number, int(frame)) for frame in drawn.frames]
            found = batch.pixels_BCTHW[position].float().mean((0, 2, 3)).tolist()
            assert found == pytest.approx(wanted, abs=1.5)
            if not batch.is_image:
                intervals.add(drawn.interval)
                assert batch.fps_B[position].item() == 24 / drawn.interval
            else:
                assert batch.fps_B[position].item() == 0
    assert intervals >= {1, 2, 3, 4}


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
@pytest.mark.parametrize("start", [0, 31, 32, 33, 40, 60])
def test_a_late_start_is_sought_from_the_right_keyframe(decoder: Decoder, start: int) -> None:
    if decoder == "decord":
        pytest.importorskip("decord")
    bucket = Bucket.from_name("f065_64x64")
    media = media_of(0, bucket)
    shape = Bucket(num_frames=5, height=32, width=48)
    view = View(shape, start, interval=1, scaled_HW=(64, 64), top=8, left=8)
    out_THWC = np.empty((5, 32, 48, 3), np.uint8)
    frame_decoder(decoder)(media, view, out_THWC)
    wanted = [level(0, start + frame) for frame in range(5)]
    assert out_THWC.mean((1, 2, 3)).tolist() == pytest.approx(wanted, abs=1.5)


def test_a_run_that_stops_anywhere_goes_on_the_same(corpus: ShardCorpus) -> None:
    view = ViewConfig(max_frames=9, placement="random", max_frame_interval=2)
    whole = first_batches(corpus, 16, view=view)
    assert [batch.step for batch in whole] == list(range(16))  # counted on over epochs
    for stop in (1, 5, 6, 7, 15):  # an epoch has 6 steps
        state = whole[stop - 1].next_state
        rest = first_batches(
            corpus,
            16 - stop,
            view=view,
            state=state,
            config=DataLoaderConfig(num_threads=1, prefetch_steps=4),
        )
        assert_same(rest, whole[stop:])


def test_the_number_of_ranks_may_change_while_a_run_rests(corpus: ShardCorpus) -> None:
    view = ViewConfig(max_frames=9, placement="random", max_frame_interval=2)
    whole = first_batches(corpus, 9, view=view)
    state = PlanState()
    for first, world_size in ((0, 1), (3, 2), (6, 4)):
        by_rank = [
            first_batches(corpus, 3, view=view, state=state, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        for step in range(3):
            parts = [batches[step] for batches in by_rank]
            wanted = whole[first + step]
            assert {part.bucket for part in parts} == {wanted.bucket}
            assert {part.next_state for part in parts} == {wanted.next_state}
            assert sum((part.draw_keys for part in parts), ()) == wanted.draw_keys
            assert sum((part.captions for part in parts), ()) == wanted.captions
            assert torch.equal(torch.cat([p.pixels_BCTHW for p in parts]), wanted.pixels_BCTHW)
        state = whole[first + 2].next_state


def test_a_sample_twice_in_a_step_draws_twice(tmp_path: Path) -> None:
    corpus = ShardCorpus.open([write_shards(tmp_path / "s", {"f017_32x32": 1})])
    [batch] = first_batches(corpus, 1, view=ViewConfig(max_frames=1, placement="random"))
    assert batch.keys == (key_of(0),) * 4
    assert len(set(batch.draw_keys)) == 4
    assert len({pixels.numpy().tobytes() for pixels in batch.pixels_BCTHW}) > 1


def test_bad_samples_are_replaced_the_same_way_everywhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = frozenset({1, 13})
    corpus = ShardCorpus.open(
        [write_shards(tmp_path / "s", {"f001_32x32": 8, "f017_32x32": 8}, bad=bad)]
    )
    with caplog.at_level(logging.WARNING):
        whole = first_batches(corpus, 8)
    assert sum(batch.replaced for batch in whole) >= 4  # two bad ones, two epochs
    assert f"{key_of(1)} cannot be decoded" in caplog.text
    assert not {key_of(number) for number in bad} & {key for b in whole for key in b.keys}
    for batch in whole:
        assert {number_of(key) < 8 for key in batch.keys} == {batch.is_image}
    assert_same(first_batches(corpus, 8, config=DataLoaderConfig(num_threads=1)), whole)
    parts = [first_batches(corpus, 8, rank=rank, world_size=2) for rank in range(2)]
    for step, batch in enumerate(whole):
        assert parts[0][step].keys + parts[1][step].keys == batch.keys


def test_too_many_bad_samples_end_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    corpus = ShardCorpus.open([write_shards(folder, {"f001_32x32": 8}, bad=frozenset({1}))])
    config = DataLoaderConfig(num_threads=1, max_replaced_share=0.05, replaced_grace=1)
    with pytest.raises(DataError, match=r"2 of \d+ samples are bad, 5.00% are allowed"):
        first_batches(corpus, 20, config=config)
    corpus = ShardCorpus.open(
        [write_shards(tmp_path / "t", {"f001_32x32": 4}, bad=frozenset(range(4)))]
    )
    with pytest.raises(DataError, match="2 samples in a row are bad"):
        first_batches(corpus, 2, config=config)


def test_a_shard_that_changes_while_training_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    corpus = ShardCorpus.open([write_shards(folder, {"f001_32x32": 4})])
    [tar] = folder.rglob("*.tar")
    whole = tar.read_bytes()

    tar.write_bytes(whole[:700])
    with pytest.raises(
        DataError, match=r"ends before byte \d+, where the index has a sample; the file was cut"
    ):
        first_batches(corpus, 1)
    tar.write_bytes(whole.replace(key_of(2).encode(), key_of(3).encode()))
    with pytest.raises(DataError, match=f"the index says {key_of(2)} at byte .*altered"):
        first_batches(corpus, 2)
    tar.write_bytes(b"x" * len(whole))
    with pytest.raises(DataError, match="no description of a sample; the shard was altered"):
        first_batches(corpus, 1)
    tar.unlink()
    with pytest.raises(DataError, match="there is no such file; restore it"):
        first_batches(corpus, 1)


class _Slow:
    def empty(self, shape: Bucket, num: int) -> dict[str, Tensor]:
        return {"pixels": torch.empty(num)}

    def read(self, request: SampleRequest, into: Mapping[str, Tensor]) -> ReadSample:
        time.sleep(1)
        return ReadSample("a", StructuredCaption(captioner="test"), 0.0)


def test_a_read_that_never_ends_is_an_error_not_a_hang(corpus: ShardCorpus) -> None:
    loader = SampleLoader(
        corpus,
        PlanConfig(global_batch=4),
        config=DataLoaderConfig(timeout_s=0.2, num_threads=1),
        reader=_Slow(),
    )
    with pytest.raises(DataError, match=r"was not read within 0.2 s; check the storage"):
        next(loader.batches())
    loader.close()


def test_a_state_of_other_data_is_refused(corpus: ShardCorpus) -> None:
    with pytest.raises(DataError, match="step 99 of an epoch of 6; resume with the data"):
        first_batches(corpus, 1, state=PlanState(step_in_epoch=99))


def test_ranks_that_do_not_divide_are_refused(corpus: ShardCorpus) -> None:
    with pytest.raises(DataError, match="a batch of 4 cannot be split over 3 ranks"):
        first_batches(corpus, 1, world_size=3)


def test_the_thread_that_trains_frees_no_batch_and_starts_no_read(corpus: ShardCorpus) -> None:
    freed_by: list[str] = []

    def note(tensor: "weakref.ref[Tensor]") -> None:
        del tensor
        freed_by.append(threading.current_thread().name)

    class Noting(PixelReader):
        def empty(self, shape: Bucket, num: int) -> dict[str, Tensor]:
            assert threading.current_thread() is not threading.main_thread()
            return super().empty(shape, num)

    reader = Noting(corpus, ViewConfig(), seed=0, decoder="pyav")
    loader = SampleLoader(corpus, PlanConfig(global_batch=4), config=CONFIG, reader=reader)
    batches, refs = loader.batches(), []
    for _ in range(8):
        batch = next(batches)  # the one before is held until this one is there, as a trainer does
        refs.append(weakref.ref(batch.pixels_BCTHW, note))
    deadline = time.monotonic() + 30
    while len(freed_by) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(freed_by) == 6
    assert threading.main_thread().name not in freed_by
    loader.close()


def test_memory_is_channels_last(corpus: ShardCorpus) -> None:
    [batch] = first_batches(corpus, 1)
    assert batch.pixels_BCTHW.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.fixture
def bucket_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket of a local server; the endpoint is found through the environment."""
    moto_server = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    server = moto_server.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("shards")
    yield "s3://shards/tier-1"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


# The clients and the test server warn about their own futures and sockets.
@pytest.mark.filterwarnings("ignore")
def test_shards_in_an_object_store(bucket_url: str, manifest: str, corpus: ShardCorpus) -> None:
    import s3fs

    s3fs.S3FileSystem().put(os.path.dirname(manifest), bucket_url, recursive=True)
    remote = ShardCorpus.open([f"{bucket_url}/manifest.json"], verify="full")
    assert remote.manifest_hash == corpus.manifest_hash
    assert_same(first_batches(remote, 7), first_batches(corpus, 7))
    s3fs.S3FileSystem().rm(remote.shards[0])
    with pytest.raises(DataError, match=r"s3://shards/tier-1/.*there is no such file"):
        first_batches(remote, 7)


@pytest.mark.filterwarnings("ignore")
def test_an_object_store_that_is_not_there_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    s3fs = pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(DataError, match=r"s3://shards/manifest.json: .*check the endpoint"):
        ShardCorpus.open(["s3://shards/manifest.json"])
    s3fs.S3FileSystem.clear_instance_cache()
