import itertools
import logging
from pathlib import Path

import pytest
import torch

from modeling.caption_text import CaptionTextConfig
from modeling.data.batch_size import PlanConfig
from modeling.data.corpus import ShardCorpus
from modeling.data.errors import DataError, SampleError
from modeling.data.latent_format import (
    EncodedText,
    LatentSample,
    check_encoders,
    latent_bytes,
    read_latents,
)
from modeling.data.latent_reader import LatentReader
from modeling.data.loader import Batch, DataLoaderConfig, SampleLoader
from modeling.vae_config import VAEConfig
from schemas.tier import Bucket
from tests.modeling.data.shards import edit_manifest, key_of, write_shards

COUNTS = {"f001_32x32": 4, "f017_32x48": 4}


def shape_of(bucket: Bucket) -> tuple[int, int, int, int]:
    return VAEConfig().latent_shape(bucket.num_frames, bucket.height, bucket.width)


def latents_of(number: int, bucket: Bucket) -> LatentSample:
    size = shape_of(bucket)
    texts = [
        EncodedText(
            f"text {number}.{variant}",
            {
                "states": torch.full((number + variant + 1, 6), float(number)),
                "pooled": torch.full((3,), float(variant)),
            },
        )
        for variant in range(2)
    ]
    mean = torch.full(size, float(number), dtype=torch.bfloat16)
    return LatentSample(mean, torch.full(size, -2.0, dtype=torch.bfloat16), texts)


def batches(manifest: str, num: int, **config: float) -> list[Batch]:
    corpus = ShardCorpus.open([manifest])
    loader = SampleLoader(
        corpus,
        PlanConfig(global_batch=2),
        config=DataLoaderConfig(num_threads=2),
        captions=CaptionTextConfig.model_validate({"drop_text": 0, **config}),
        reader=LatentReader(corpus, shape_of, seed=0),
    )
    try:
        return list(itertools.islice(loader.batches(), num))
    finally:
        loader.close()


def test_a_member_reads_as_it_was_written() -> None:
    sample = latents_of(3, Bucket.from_name("f017_32x48"))
    data = latent_bytes(sample)
    assert data == latent_bytes(sample)
    again = read_latents(data)
    assert torch.equal(again.mean_CTHW, sample.mean_CTHW)
    assert torch.equal(again.logvar_CTHW, sample.logvar_CTHW)
    for found, wanted in zip(again.texts, sample.texts, strict=True):
        assert found.text == wanted.text
        assert {n: t.tolist() for n, t in found.states.items()} == {
            n: t.tolist() for n, t in wanted.states.items()
        }


@pytest.mark.parametrize(
    "data",
    [b"", b"rubble" * 9, latent_bytes(LatentSample(torch.zeros(1), torch.zeros(1), ()))[:-3]],
)
def test_rubble_is_a_bad_sample(data: bytes) -> None:
    with pytest.raises(SampleError, match="is no latent sample"):
        read_latents(data)


def test_latent_shards_go_through_the_same_loader(tmp_path: Path) -> None:
    manifest = write_shards(
        tmp_path / "s", COUNTS, media=lambda n, bucket: latent_bytes(latents_of(n, bucket))
    )
    numbers = {key_of(number): number for number in range(8)}
    variants = set()
    for batch in batches(manifest, 12):
        assert batch.tensors["mean"].shape[1:] == shape_of(batch.bucket)
        for position, key in enumerate(batch.keys):
            number = numbers[key]
            assert set(batch.tensors["mean"][position].flatten().tolist()) == {number}
            assert set(batch.tensors["logvar"][position].flatten().tolist()) == {-2}
            variant = int(batch.ragged["pooled"][position][0])
            variants.add(variant)
            assert batch.captions[position] == f"text {number}.{variant}"
            assert batch.ragged["states"][position].shape == (number + variant + 1, 6)
    assert variants == {0, 1}
    assert {text for b in batches(manifest, 4, drop_text=1) for text in b.captions} == {""}


def test_latents_of_another_shape_are_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Bucket.from_name("f005_32x32")
    manifest = write_shards(
        tmp_path / "s",
        {"f017_32x48": 4},
        media=lambda n, bucket: latent_bytes(latents_of(n, other if n == 1 else bucket)),
    )
    with caplog.at_level(logging.WARNING):
        found = batches(manifest, 2)
    assert sum(batch.replaced for batch in found) >= 1
    assert "mean has shape (16, 2, 4, 4), expected (16, 5, 4, 6)" in caplog.text


def test_other_encoders_are_refused(tmp_path: Path) -> None:
    manifest = write_shards(
        tmp_path / "s", {"f001_32x32": 1}, media=lambda n, b: latent_bytes(latents_of(n, b))
    )
    edit_manifest(manifest, weights={"vae": "aaaa", "text": "bbbb"})
    corpus = ShardCorpus.open([manifest])
    check_encoders(corpus, {"vae": "aaaa", "text": "bbbb"})
    with pytest.raises(DataError, match="encoded by vae aaaa, the run has cccc; encode the shards"):
        check_encoders(corpus, {"vae": "cccc"})
    with pytest.raises(DataError, match="encoded by pooled of unknown weights, the run has x"):
        check_encoders(corpus, {"pooled": "x"})
