"""Reads samples whose media were encoded before: latents and text states, nothing to decode."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from modeling.data.corpus import ShardCorpus
from modeling.data.draw import whole_number
from modeling.data.errors import SampleError
from modeling.data.files import RangeReader
from modeling.data.latent_format import read_latents
from modeling.data.members import fetch_members
from modeling.data.samples import ReadSample, SampleRequest
from schemas.tier import Bucket

# (C, t, h, w) of the latent of a bucket; only the VAE's config knows it.
LatentShape = Callable[[Bucket], tuple[int, int, int, int]]


class LatentReader:
    """Fills `mean` and `logvar` (B x C x t x h x w); text states are ragged, by encoder.

    Where a text is dropped for guidance the batch's caption is "" and the states are still those
    of the text: the trainer puts the states of "" in their place.
    """

    def __init__(
        self,
        corpus: ShardCorpus,
        latent_shape: LatentShape,
        *,
        seed: int,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        self._corpus = corpus
        self._latent_shape = latent_shape
        self._seed = seed
        self._dtype = dtype
        self._files = RangeReader()

    def empty(self, shape: Bucket, num: int) -> dict[str, Tensor]:
        size = (num, *self._latent_shape(shape))
        return {name: torch.empty(size, dtype=self._dtype) for name in ("mean", "logvar")}

    def read(self, request: SampleRequest, into: Mapping[str, Tensor]) -> ReadSample:
        place = self._corpus.place(request.index)
        media, described = fetch_members(self._files, place)
        latents = read_latents(media)
        for name, found in (("mean", latents.mean_CTHW), ("logvar", latents.logvar_CTHW)):
            if found.shape != into[name].shape:
                wanted = tuple(into[name].shape)
                raise SampleError(f"{name} has shape {tuple(found.shape)}, expected {wanted}")
            into[name].copy_(found)
        fps = place.fps or 0.0
        if not latents.texts:
            return ReadSample(place.key, described.caption, fps, text="")
        number = whole_number(
            len(latents.texts),
            seed=self._seed,
            key=request.draw_key,
            step=request.step,
            stream="encoded text",
        )
        chosen = latents.texts[number]
        return ReadSample(place.key, described.caption, fps, chosen.states, chosen.text)
