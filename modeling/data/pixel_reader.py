"""Reads video and image samples from shards: one ranged read, one decode."""

from collections.abc import Mapping

import torch
from torch import Tensor

from modeling.data.corpus import ShardCorpus
from modeling.data.decode import Decoder, frame_decoder
from modeling.data.files import RangeReader
from modeling.data.members import fetch_members
from modeling.data.samples import ReadSample, SampleRequest
from modeling.data.view import ViewConfig
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
        media, sample = fetch_members(self._files, place)
        view = self._view.draw(
            place.bucket, seed=self._seed, key=request.draw_key, step=request.step
        )
        self._decode(media, view, into["pixels"].permute(1, 2, 3, 0).numpy())
        fps = 0.0 if place.fps is None else place.fps / view.interval
        return ReadSample(place.key, sample.caption, fps)
