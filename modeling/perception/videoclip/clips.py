"""Frames and captions of shards, each sample decoded once and kept on disk.

    CACHE/f008_224x224/KEY.npz    frames_THWC (uint8 RGB)
    CACHE/f008_224x224/KEY.bad    why a sample has none

Frames are those at the centers of equal parts of the clip, the whole picture squeezed to a square,
as the pipeline will show them to the exported network.
"""

import hashlib
import io
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from av.error import FFmpegError
from numpy.typing import NDArray
from torch import Tensor

from modeling.data.corpus import ShardCorpus
from modeling.data.errors import DataError, SampleError
from modeling.data.files import RangeReader
from modeling.data.members import fetch_members
from schemas.caption import StructuredCaption

_LOG = logging.getLogger(__name__)
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class CachedClip:
    key: str
    source: str  # sha256 of the file that the clip was cut from
    caption: StructuredCaption
    frames: Path

    def is_held_out(self, share: float) -> bool:
        """By source, so that no two moments of one file stand on both sides."""
        digest = hashlib.sha256(self.source.encode()).digest()
        return int.from_bytes(digest[:8], "big") < share * 2**64


def cache_clips(
    corpus: ShardCorpus, folder: Path, *, num_frames: int, side: int
) -> list[CachedClip]:
    """All samples with text that can be decoded, in the order of the corpus.

    A call that was ended goes on where it was. Raises DataError for shards that changed, and where
    no sample is left.
    """
    folder = folder / f"f{num_frames:03d}_{side}x{side}"
    folder.mkdir(parents=True, exist_ok=True)
    files, clips = RangeReader(), []
    num_bad = num_silent = 0
    for index in range(len(corpus)):
        media, sample = fetch_members(files, corpus.place(index))
        if not sample.caption.to_prompt():
            num_silent += 1
            continue
        path, bad = folder / f"{sample.clip_id}.npz", folder / f"{sample.clip_id}.bad"
        if not path.exists() and not bad.exists():
            try:
                frames = evenly_spaced(media, sample.num_frames, num_frames, side)
            except SampleError as error:
                _LOG.warning("%s: %s", sample.clip_id, error)
                bad.write_text(f"{error}\n")
            else:
                _write(path, frames)
        if bad.exists():
            num_bad += 1
            continue
        clips.append(CachedClip(sample.clip_id, sample.source_sha256, sample.caption, path))
    _LOG.info("%d clips; %d cannot be decoded, %d have no text", len(clips), num_bad, num_silent)
    if not clips:
        raise DataError("shards", "no sample has both frames and text", "write captions first")
    return clips


def evenly_spaced(media: bytes, num_there: int, num_wanted: int, side: int) -> Pixels:
    """num_wanted x side x side x 3: frames at the centers of equal parts. Raises SampleError."""
    wanted = [(2 * k + 1) * num_there // (2 * num_wanted) for k in range(num_wanted)]
    shown: dict[int, Pixels] = {}
    try:
        with av.open(io.BytesIO(media), "r") as container:
            for index, frame in enumerate(container.decode(video=0)):
                if index in wanted:
                    small = frame.reformat(width=side, height=side, format="rgb24")
                    shown[index] = small.to_ndarray().astype(np.uint8, copy=False)
                if index == wanted[-1]:
                    break
    except (FFmpegError, IndexError, EOFError) as error:
        raise SampleError(f"cannot be decoded ({error})") from error
    if missing := set(wanted) - set(shown):
        raise SampleError(f"frame {min(missing)} is not there")
    return np.stack([shown[index] for index in wanted])


def load_frames(clips: Sequence[CachedClip]) -> Tensor:
    """frames_NTHWC, uint8."""
    frames = []
    for clip in clips:
        with np.load(clip.frames) as file:
            frames.append(torch.from_numpy(file["frames_THWC"]))
    return torch.stack(frames)


def _write(path: Path, frames_THWC: Pixels) -> None:
    """Whole or not there."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as file:
        np.savez(file, frames_THWC=frames_THWC)
    partial.replace(path)
