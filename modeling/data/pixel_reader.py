"""Reads video and image samples from shards: one ranged read, one decode."""

from collections.abc import Mapping

import torch
from pydantic import ValidationError
from torch import Tensor

from modeling.data.corpus import SamplePlace, ShardCorpus
from modeling.data.decode import Decoder, frame_decoder
from modeling.data.errors import DataError
from modeling.data.files import RangeReader
from modeling.data.samples import ReadSample, SampleRequest
from modeling.data.view import ViewConfig
from schemas.shard import ShardSample
from schemas.tier import Bucket


class PixelReader:
    """Fills `pixels`: uint8 B x C x T x H x W, RGB, channels last in memory."""

    def __init__(
        self, corpus: ShardCorpus, view: ViewConfig, *, seed: int, decoder: Decoder = "pyav"
    ) -> None:
        self._corpus = corpus
        self._view = view
        self._seed = seed
        self._decode = frame_decoder(decoder)
        self._files = RangeReader()

    def empty(self, shape: Bucket, num: int) -> dict[str, Tensor]:
        size = (num, shape.num_frames, shape.height, shape.width, 3)
        return {"pixels": torch.empty(size, dtype=torch.uint8).permute(0, 4, 1, 2, 3)}

    def read(self, request: SampleRequest, into: Mapping[str, Tensor]) -> ReadSample:
        place = self._corpus.place(request.index)
        media, sample = self._fetch(place)
        view = self._view.draw(
            place.bucket, seed=self._seed, key=request.draw_key, step=request.step
        )
        self._decode(media, view, into["pixels"].permute(1, 2, 3, 0).numpy())
        fps = 0.0 if place.fps is None else place.fps / view.interval
        return ReadSample(place.key, sample.caption, fps)

    def _fetch(self, place: SamplePlace) -> tuple[bytes, ShardSample]:
        """Media and description in one read: they are neighbors in the tar."""
        first = min(place.media_offset, place.json_offset)
        end = max(place.media_offset + place.media_size, place.json_offset + place.json_size)
        data = memoryview(self._files.read(place.shard, first, end - first))
        start = place.media_offset - first
        media = bytes(data[start : start + place.media_size])
        start = place.json_offset - first
        text = bytes(data[start : start + place.json_size])
        try:
            sample = ShardSample.model_validate_json(text)
        except ValidationError as error:
            raise _altered(place, "what lies there is no description of a sample") from error
        if sample.clip_id != place.key:
            raise _altered(place, f"{sample.clip_id} lies there")
        return media, sample


def _altered(place: SamplePlace, found: str) -> DataError:
    return DataError(
        place.shard,
        f"the index says {place.key} at byte {place.json_offset}, {found}",
        "the shard was altered after its manifest was written; fetch it again",
    )
