"""Latent shards hold what training would have made of the pixels, and nothing is done twice."""

import hashlib
import itertools
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling.data.corpus import ShardCorpus
from modeling.data.errors import DataError
from modeling.data.files import RangeReader
from modeling.data.latent_format import LatentSample, read_latents
from modeling.data.members import fetch_members
from modeling.data.view import ViewConfig
from modeling.precompute import RayRunner, encode_config, precompute
from modeling.train.config import TrainConfig
from modeling.train.errors import ConfigError
from modeling.train.latent_job import Job
from modeling.train.stream import BatchStream, open_corpus
from tests.modeling.data.shards import key_of, write_shards
from tests.modeling.train.runs import DIT, VAE, config_of, make_trainer, metrics

CPU = torch.device("cpu")
CANONICAL = {"canonical": 1, "short": 0, "dense": 0, "mixed": 0, "json_form": 0, "drop_text": 0.3}
VIEW = {"max_frames": 5, "area_side": 32}
DATA: dict[str, Any] = {"caption": CANONICAL, "view": VIEW}


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("pixels")
    return write_shards(folder, {"f001_32x32": 2, "f005_32x32": 3, "f009_32x48": 3}, per_shard=2)


@pytest.fixture(autouse=True)
def _quiet_and_one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    logging.getLogger("c10d-NullHandler-dcp_logger").setLevel(logging.WARNING)
    yield
    torch.set_num_threads(before)


def job_of(pixels: str, out: Path, config: TrainConfig | None = None, **over: Any) -> Job:
    config = config or config_of(DIT, pixels, data=DATA)
    return Job(pixels, out, encode_config(config, CPU, **over), config.compute)


def samples_of(manifest: Path) -> dict[str, LatentSample]:
    corpus, files = ShardCorpus.open([str(manifest)], verify="full"), RangeReader()
    places = [corpus.place(index) for index in range(len(corpus))]
    return {place.key: read_latents(fetch_members(files, place)[0]) for place in places}


def digests(out: Path) -> dict[str, str]:
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(f.relative_to(out)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_a_dit_loses_on_latents_what_it_loses_on_their_pixels(pixels: str, tmp_path: Path) -> None:
    config = config_of(DIT, pixels, steps=6, data=DATA)
    latents = precompute(job_of(pixels, tmp_path / "latents", config, dtype="float32"))
    make_trainer(config, tmp_path / "a").run()
    on_latents = config_of(DIT, str(latents), steps=6, data=DATA)
    make_trainer(on_latents, tmp_path / "b").run()
    rows, others = metrics(tmp_path / "a"), metrics(tmp_path / "b")
    assert [row["bucket"] for row in rows] == [row["bucket"] for row in others]
    losses, found = ([row["loss"] for row in each] for each in (rows, others))
    assert found == pytest.approx(losses, rel=1e-5)
    dropped = config_of(DIT, str(latents), data={**DATA, "plan": {"global_batch": 2}})
    batches = BatchStream(open_corpus(dropped.data), dropped).batches(0)
    texts = {text for batch in itertools.islice(batches, 6) for text in batch.captions}
    batches.close()
    assert "" in texts  # so that states of "" are among what was compared
    assert len(texts) > 1


def test_the_same_bytes_come_again_and_finished_shards_are_left_alone(
    pixels: str, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    manifest = precompute(job_of(pixels, first, num_texts=2))
    precompute(job_of(pixels, second, num_texts=2))
    wanted = digests(first)
    assert digests(second) == wanted
    lost = next(first.rglob("*.tar"))
    times = {path: path.stat().st_mtime_ns for path in first.rglob("*-latents.*")}
    lost.unlink()
    manifest.unlink()
    precompute(job_of(pixels, first, num_texts=2))
    assert digests(first) == wanted
    again = {path for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert {path.name.split(".")[0] for path in again} == {lost.stem}


def test_captions_are_stored_in_several_forms_without_padding(pixels: str, tmp_path: Path) -> None:
    config = config_of(DIT, pixels, data={"view": VIEW, "caption": {"drop_text": 1.0}})
    samples = samples_of(precompute(job_of(pixels, tmp_path, config, num_texts=3)))
    assert len(samples) == 8
    for key, sample in samples.items():
        assert len(sample.texts) in {1, 3}
        assert sample.mean_CTHW.dtype == torch.float16
        for text in sample.texts:
            assert text.text  # dropping is for the trainer to draw
            num_tokens = min(16, len(text.text.encode()))
            assert text.states["states"].shape[0] == num_tokens
            assert text.states["states"].dtype == torch.bfloat16
            assert text.states["pooled"].ndim == 1
        number = next(n for n in range(8) if key_of(n) == key)
        assert any(f"Clip {number}" in text.text for text in sample.texts)


def test_large_clips_are_encoded_in_tiles(pixels: str, tmp_path: Path) -> None:
    config = config_of(DIT, pixels)
    job = job_of(pixels, tmp_path / "whole", config, dtype="float32")
    whole = samples_of(precompute(job))
    small = job.config.tiling.model_copy(
        update={"height": 16, "width": 16, "stride_height": 8, "stride_width": 8}
    )
    tiled_config = job.config.model_copy(update={"tiling": small, "tile_above_pixels": 5 * 32 * 32})
    tiled = samples_of(precompute(replace(job, out=tmp_path / "tiled", config=tiled_config)))
    is_same = {
        key: torch.equal(sample.mean_CTHW, tiled[key].mean_CTHW) for key, sample in whole.items()
    }
    assert [is_same[key_of(number)] for number in range(8)] == [True] * 5 + [False] * 3
    assert all(whole[key].mean_CTHW.shape == tiled[key].mean_CTHW.shape for key in whole)


def test_a_bad_sample_is_left_out_and_counted(tmp_path: Path) -> None:
    pixels = write_shards(tmp_path / "p", {"f005_32x32": 3}, per_shard=1, bad=frozenset({1}))
    path = precompute(job_of(pixels, tmp_path / "latents"))
    corpus = ShardCorpus.open([str(path)], verify="full")
    assert [corpus.key(index) for index in range(len(corpus))] == [key_of(0), key_of(2)]
    funnel = corpus.manifests[0].funnel
    assert (funnel.num_packed, funnel.failed[0].reason, funnel.failed[0].num_clips) == (
        2,
        "no_encode",
        1,
    )


def test_shards_of_bad_samples_alone_give_no_manifest(tmp_path: Path) -> None:
    pixels = write_shards(tmp_path / "p", {"f005_32x32": 2}, bad=frozenset({0, 1}))
    with pytest.raises(DataError, match="2 of 2 samples are bad; check the shards"):
        precompute(job_of(pixels, tmp_path / "latents"))
    assert not (tmp_path / "latents/manifest.json").exists()


def test_what_does_not_fit_together_is_refused_in_one_line(pixels: str, tmp_path: Path) -> None:
    out = tmp_path / "latents"
    manifest = str(precompute(job_of(pixels, out)))
    with pytest.raises(DataError, match="latents made with num_texts = 4, now 2; give another"):
        precompute(job_of(pixels, out, num_texts=2))
    with pytest.raises(DataError, match="holds latents already"):
        precompute(job_of(manifest, tmp_path / "twice"))
    for message, kind, data in (
        ("latents: a VAE trains on pixels", VAE, {}),
        ("data.view makes f001_16x16 of f001_32x32", DIT, {"view": {"area_side": 16}}),
        ("hold one view", DIT, {"view": {"placement": "random"}}),
    ):
        with pytest.raises(ConfigError, match=message):
            make_trainer(config_of(kind, manifest, data=data), tmp_path / "run")
    encoder = {"states": "byte", "pooled": "byte", "max_tokens": 8}
    other = config_of(DIT, manifest, data=DATA, dit={**DIT["dit"], "text_encoder": encoder})
    with pytest.raises(DataError, match=r"encoded by text_encoder \w+, the run has \w+; encode"):
        make_trainer(other, tmp_path / "run")
    both = config_of(DIT, manifest, data={"view": VIEW, "shards": [manifest, pixels]})
    with pytest.raises(DataError, match="1 of 2 manifests hold latents, the others pixels"):
        BatchStream(open_corpus(both.data), both)
    moving = config_of(DIT, pixels, data={"view": {"max_frame_interval": 2}})
    with pytest.raises(ConfigError, match="a latent shard holds one view"):
        job_of(pixels, tmp_path / "moving", moving)
    with pytest.raises(ConfigError, match="a VAE trains on pixels"):
        job_of(pixels, tmp_path / "vae", config_of(VAE, pixels))


def test_a_full_disk_leaves_finished_shards(
    pixels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import modeling.data.latent_shards as latent_shards

    write, calls = latent_shards._write_tar, 0

    def full_at_the_second(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(28, "No space left on device")
        return write(*args)

    monkeypatch.setattr(latent_shards, "_write_tar", full_at_the_second)
    with pytest.raises(DataError, match=r"cannot be written .No space left on device.; make room"):
        precompute(job_of(pixels, tmp_path))
    monkeypatch.undo()
    assert len(list((tmp_path / "reports").iterdir())) == 1
    assert list(tmp_path.rglob(".*")) == []
    assert len(samples_of(precompute(job_of(pixels, tmp_path)))) == 8


def test_views_of_several_buckets_may_become_one(pixels: str, tmp_path: Path) -> None:
    path = precompute(job_of(pixels, tmp_path))
    assert [bucket.name for bucket in ShardCorpus.open([str(path)]).buckets] == sorted(
        {
            ViewConfig.model_validate(VIEW).bucket(bucket).name
            for bucket in ShardCorpus.open([pixels]).buckets
        }
    )


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")
def test_ray_actors_make_the_same_bytes(pixels: str, tmp_path: Path) -> None:
    precompute(job_of(pixels, tmp_path / "here"))
    precompute(job_of(pixels, tmp_path / "ray"), lambda job: RayRunner(job, "local", 2, 0.0))
    assert digests(tmp_path / "ray") == digests(tmp_path / "here")
