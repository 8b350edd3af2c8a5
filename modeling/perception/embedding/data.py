"""Looks at clips: the clip as it is and edited copies of it, as trunk features.

Shape suffixes: N clips, L looks (the first as it is), T frames, C trunk channels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """`source_N` numbers the sources: clips of one source are other moments or scenes of it."""

    features_NLTC: NDArray[np.float16]
    source_N: NDArray[np.int64]


def read_looks(folder: Path, split: str) -> Looks:
    """What `python benchmarks/copy_looks.py` wrote. Raises ValueError where there is none."""
    features, sources = [], []
    for number, path in enumerate(sorted(folder.glob("[0-9a-f]*.npz"))):
        if path.name.endswith(".partial.npz"):
            continue
        with np.load(path) as file:
            if str(file["split"]) == split:
                features.append(_different(file["looks"]))
                sources.append(np.full(len(features[-1]), number))
    if not features:
        raise ValueError(f"{folder}: no looks of split {split!r}; make them with copy_looks.py")
    return Looks(np.concatenate(features), np.concatenate(sources))


def _different(looks_NLTC: NDArray[np.float16]) -> NDArray[np.float16]:
    """Without the clips that look just like an earlier one: two moments of a scene at rest."""
    _, first = np.unique(looks_NLTC[:, 0], axis=0, return_index=True)
    return looks_NLTC[np.sort(first)]


def draw_batch(
    looks: Looks, rng: np.random.Generator, size: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two different looks at each of `size` clips, up to four clips of a source; N x T x C each.

    The moments of one source are what is hardest to tell apart, so they meet in one batch.
    """
    chosen: list[int] = []
    sources = np.unique(looks.source_N)
    while len(chosen) < size:
        members = np.flatnonzero(looks.source_N == sources[rng.integers(len(sources))])
        chosen += [int(i) for i in rng.permutation(members)[:4] if i not in chosen]
        if len(chosen) == len(looks.source_N):
            break
    index = np.array(chosen[:size])
    num_looks = looks.features_NLTC.shape[1]
    copy = rng.integers(1, num_looks, len(index))
    # Mostly the clip as it is against a copy, else two copies.
    other = np.where(rng.random(len(index)) < 0.7, 0, rng.integers(1, num_looks, len(index)))
    other = np.where(other == copy, 0, other)
    return (
        looks.features_NLTC[index, other].astype(np.float32),
        looks.features_NLTC[index, copy].astype(np.float32),
    )
