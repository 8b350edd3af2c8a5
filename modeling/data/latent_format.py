"""The `<key>.safetensors` member of a latent shard: what encoders made of one sample.

Such shards have the manifest, the index and the JSON members of the pixel shards that they were
made from; the media member alone differs, and `weights` of the manifest names the encoders. The
mean and log-variance are stored, not a draw, so that each step can draw anew. Text states have no
padding. A sample may hold several texts; the loader draws one of them per step.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from modeling.data.corpus import ShardCorpus
from modeling.data.errors import DataError, SampleError

LATENT_SUFFIX = "safetensors"
VAE, TEXT_ENCODER = "vae", "text_encoder"  # names of the encoders in a manifest's weights
STATES, POOLED = "states", "pooled"  # what the text encoder makes of a text


@dataclass(frozen=True, slots=True)
class EncodedText:
    """One text and what each text encoder made of it, by the encoder's name."""

    text: str
    states: Mapping[str, Tensor]  # L x D, or D for a pooled one


@dataclass(frozen=True, slots=True)
class LatentSample:
    mean_CTHW: Tensor
    logvar_CTHW: Tensor
    texts: Sequence[EncodedText]


def latent_bytes(sample: LatentSample) -> bytes:
    """The member's content; equal samples, equal bytes."""
    tensors = {"mean": sample.mean_CTHW, "logvar": sample.logvar_CTHW}
    for number, text in enumerate(sample.texts):
        tensors |= {f"text.{number}.{name}": states for name, states in text.states.items()}
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(whole, {"texts": json.dumps([text.text for text in sample.texts])})


def read_latents(data: bytes) -> LatentSample:
    """Raises SampleError for bytes that are no such member."""
    try:
        tensors = load(data)
        (size,) = struct.unpack("<Q", data[:8])
        texts = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["texts"])
        return LatentSample(
            tensors["mean"],
            tensors["logvar"],
            [EncodedText(text, _of_text(tensors, number)) for number, text in enumerate(texts)],
        )
    except (SafetensorError, KeyError, ValueError, struct.error) as error:
        raise SampleError(f"is no latent sample ({error})") from error


def is_latent(corpus: ShardCorpus) -> bool:
    """Whether its samples are latents. Raises DataError where only some are."""
    latent = [VAE in manifest.weights for manifest in corpus.manifests]
    if any(latent) and not all(latent):
        raise DataError(
            "shards",
            f"{sum(latent)} of {len(latent)} manifests hold latents, the others pixels",
            "give manifests of one kind",
        )
    return any(latent)


def check_encoders(corpus: ShardCorpus, fingerprints: Mapping[str, str]) -> None:
    """Raises DataError where a manifest was made by other encoders than those of the run."""
    for manifest in corpus.manifests:
        for name, wanted in fingerprints.items():
            if (found := manifest.weights.get(name)) != wanted:
                raise DataError(
                    f"latent shards of {manifest.tier}",
                    f"encoded by {name} {found or 'of unknown weights'}, the run has {wanted}",
                    "encode the shards again, or give the encoder that made them",
                )


def _of_text(tensors: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    start = f"text.{number}."
    return {name[len(start) :]: value for name, value in tensors.items() if name.startswith(start)}
