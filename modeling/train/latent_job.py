"""Encodes pixel shards one by one, on one device: what a process or a Ray actor does."""

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from modeling.data.corpus import SamplePlace, ShardCorpus, Verify
from modeling.data.errors import DataError, SampleError
from modeling.data.files import RangeReader
from modeling.data.latent_format import is_latent, latent_bytes
from modeling.data.latent_shards import EncodedSample, LatentShardReport, write_shard
from modeling.data.pixel_reader import PixelReader
from modeling.data.samples import SampleRequest
from modeling.train import compute
from modeling.train.config import ComputeConfig
from modeling.train.latent_encoder import EncodeConfig, LatentEncoder
from schemas.base import fingerprint
from schemas.caption import StructuredCaption

logger = logging.getLogger(__name__)

_VERSION = 1  # part of every task: raise it when the same settings give other bytes
_Decoded = tuple[Tensor, StructuredCaption]


@dataclass(frozen=True)
class Job:
    """All that a worker needs, small enough to be sent to it."""

    manifest: str
    out: Path
    config: EncodeConfig
    compute: ComputeConfig
    num_threads: int = 2  # that decode ahead of the encoder
    verify: Verify = "index"


class ShardEncoder:
    """Encodes shards by their number in the manifest. One process, one device."""

    def __init__(self, job: Job) -> None:
        self._job = job
        device = compute.pick_device(job.compute)
        compute.prepare(job.compute, device)
        self._corpus = open_pixels(job)
        self._entries = self._corpus.manifests[0].shards
        self._encoder = LatentEncoder(job.config, device)
        self._files = RangeReader()
        view = job.config.view
        self._reader = PixelReader(
            self._corpus, view, seed=job.config.seed, decoder=job.config.decoder
        )

    def fingerprints(self) -> dict[str, str]:
        return dict(self._encoder.fingerprints)

    def encode(self, number: int) -> LatentShardReport:
        """Raises DataError for a bad shard, a full disk or too little memory."""
        entry = self._entries[number]
        first = sum(before.num_samples for before in self._entries[:number])
        failed: dict[str, str] = {}
        source = self._corpus.place(first).bucket
        return write_shard(
            self._job.out,
            entry,
            self._job.config.view.bucket(source),
            self._encoded(range(first, first + entry.num_samples), failed),
            task=task_of(self._job.config, self.fingerprints(), entry.sha256, entry.index_sha256),
            failed=failed,
        )

    def _encoded(self, indices: range, failed: dict[str, str]) -> Iterator[EncodedSample]:
        for place, index, decoded in self._decoded(indices):
            try:
                pixels_CTHW, caption = decoded.result()
                latents = self._encoder.encode(place.key, pixels_CTHW, caption)
            except SampleError as error:
                logger.warning("%s: %s %s; left out", place.shard, place.key, error)
                failed[place.key] = str(error)
                continue
            except torch.OutOfMemoryError as error:
                raise DataError(
                    place.key,
                    f"{place.bucket.name} does not fit into the device's memory",
                    "lower --tile-above, or the view's size",
                ) from error
            yield EncodedSample(
                place,
                weight=float(self._corpus.weight_N[index]),
                media=latent_bytes(latents),
                description=self._files.read(place.shard, place.json_offset, place.json_size),
            )

    def _decoded(self, indices: range) -> Iterator[tuple[SamplePlace, int, "Future[_Decoded]"]]:
        """Samples in order, decoded some ahead."""
        ahead: deque[tuple[SamplePlace, int, Future[_Decoded]]] = deque()
        with ThreadPoolExecutor(self._job.num_threads) as pool:
            for index in indices:
                place = self._corpus.place(index)
                ahead.append((place, index, pool.submit(self._decode, place, index)))
                if len(ahead) > self._job.num_threads:
                    yield ahead.popleft()
            yield from ahead

    def _decode(self, place: SamplePlace, index: int) -> _Decoded:
        shape = self._job.config.view.bucket(place.bucket)
        into = self._reader.empty(shape, 1)["pixels"]
        request = SampleRequest(index, place.key, 0, shape)
        read = self._reader.read(request, {"pixels": into[0]})
        return into[0], read.caption


def task_of(config: EncodeConfig, encoders: Mapping[str, str], *source: str) -> str:
    """Changes with all that the bytes of a shard follow from, but not with the VAE's place."""
    settings = config.model_dump(mode="json", exclude={"vae"})
    return fingerprint(_VERSION, settings, dict(encoders), list(source))


def open_pixels(job: Job) -> ShardCorpus:
    corpus = ShardCorpus.open([job.manifest], verify=job.verify)
    if is_latent(corpus):
        raise DataError(job.manifest, "holds latents already", "give the manifest of pixel shards")
    return corpus
