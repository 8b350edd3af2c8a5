"""Sections about the pool as a whole: its concepts and its near duplicates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pyarrow import compute

from pipeline.report.page import Report, Section, tile

pc: Any = compute  # its stubs do not know chunked columns

_MAX_CLUSTERS = 40
_EACH = 8
_MAX_PAIRS = 60


@dataclass(frozen=True, slots=True)
class ClusterSheet:
    """A concept: its size, the mean balance weight, the clips nearest to its center."""

    cluster: int
    num_clips: int
    weight: float
    nearest: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DuplicatePair:
    kept: str
    dropped: str
    similarity: float


def clusters(joined: pa.Table) -> list[ClusterSheet]:
    """The largest first."""
    columns = ["clip_id", "cluster", "cluster_distance", "weight"]
    rows = joined.select(columns).filter(pc.is_valid(joined["cluster"])).to_pylist()
    members: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        members.setdefault(row["cluster"], []).append(row)
    largest = sorted(members, key=lambda cluster: (-len(members[cluster]), cluster))
    found = []
    for cluster in largest[:_MAX_CLUSTERS]:
        group = sorted(members[cluster], key=lambda row: row["cluster_distance"] or 0.0)
        weight = sum(row["weight"] or 0.0 for row in group) / len(group)
        nearest = tuple(str(row["clip_id"]) for row in group[:_EACH])
        found.append(ClusterSheet(cluster, len(group), weight, nearest))
    return found


def duplicates(joined: pa.Table) -> list[DuplicatePair]:
    """The least alike first: there a wrong one shows."""
    columns = ["clip_id", "duplicate_of", "similarity"]
    rows = joined.select(columns).filter(pc.is_valid(joined["duplicate_of"])).to_pylist()
    pairs = [
        DuplicatePair(row["duplicate_of"], row["clip_id"], row["similarity"] or 0.0) for row in rows
    ]
    return sorted(pairs, key=lambda pair: (pair.similarity, pair.dropped))[:_MAX_PAIRS]


def clusters_section(report: Report, found: Sequence[ClusterSheet]) -> Section:
    parts = ['<p class="quiet">The clips nearest to the center of each concept.</p>']
    for one in found:
        tiles = "".join(tile(report, clip_id, clip_id[:12]) for clip_id in one.nearest)
        parts.append(
            f"<h3>concept {one.cluster} <small>{one.num_clips} clips, mean balance weight "
            f'{one.weight:.2f}</small></h3><div class="sheet">{tiles}</div>'
        )
    return Section("concepts", "Concepts", "".join(parts))


def duplicates_section(report: Report, pairs: Sequence[DuplicatePair]) -> Section:
    if not pairs:
        return Section("duplicates", "Near duplicates", "<p>None were found.</p>")
    total = pc.count(report.joined["duplicate_of"]).as_py()
    cards = "".join(
        f'<div class="pair">{tile(report, pair.kept, f"kept {pair.kept[:12]}", "in")}'
        f"{tile(report, pair.dropped, f'dropped, cosine {pair.similarity:.3f}', 'out')}</div>"
        for pair in pairs
    )
    why = f"{total} clips; the least alike are shown first."
    return Section(
        "duplicates",
        "Near duplicates",
        f'<p class="quiet">{why}</p><div class="pairs">{cards}</div>',
    )
