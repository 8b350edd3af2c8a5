"""The three tables of the split step: clips, accepted boundaries, rejected candidates."""

from collections import Counter
from dataclasses import dataclass

from pipeline.arrow import schema_of
from pipeline.engine.work import Part, PartReport
from pipeline.onnx_model import locate_weights
from pipeline.split.config import SplitConfig
from pipeline.storage import Store
from pipeline.tables import Table
from schemas.base import fingerprint
from schemas.clip import ClipRow, ShotCandidateRow, ShotRow

VERSION = 2  # raise it when results change
# What can change without changing a row.
_FREE_FIELDS = {"transnet_provider": True, "limits": True}


def split_fingerprint(config: SplitConfig) -> str:
    """Changes when the results may. Raises WeightsError where the second witness is missing."""
    plain = config.model_dump(mode="json", exclude=_FREE_FIELDS)
    weights = None if config.transnet == "off" else locate_weights(config.transnet_weights).sha256
    return fingerprint("split", VERSION, plain, weights)


@dataclass(frozen=True, slots=True)
class SplitTables:
    """`clips` is written last: a part that it holds is finished in all three."""

    clips: Table
    shots: Table
    candidates: Table

    @classmethod
    def at(cls, store: Store, table_fingerprint: str) -> "SplitTables":
        return cls(
            clips=Table(store, "clips", table_fingerprint, schema_of(ClipRow)),
            shots=Table(store, "shots", table_fingerprint, schema_of(ShotRow)),
            candidates=Table(
                store, "shot_candidates", table_fingerprint, schema_of(ShotCandidateRow)
            ),
        )

    def write(
        self,
        key: str,
        clips: list[ClipRow],
        shots: list[ShotRow],
        candidates: list[ShotCandidateRow],
        *,
        seconds: float,
    ) -> None:
        self.candidates.write_part(key, candidates, seconds=seconds)
        self.shots.write_part(key, shots, seconds=seconds)
        self.clips.write_part(key, clips, seconds=seconds)

    def discard_unfinished(self) -> None:
        """Remove what a kill left in the other two tables."""
        keys = self.clips.done_keys()
        self.shots.discard_except(keys)
        self.candidates.discard_except(keys)

    def done_sources(self) -> set[tuple[str, str]]:
        """(URI, sha256) of the sources that a finished part holds."""
        rows = self.clips.read(["source_uri", "source_sha256"])
        return set(zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True))

    def find_report(self, part: Part) -> PartReport | None:
        """What a finished part holds; None when it is not on disk."""
        if part.key not in self.clips.done_keys():
            return None
        rows = self.clips.read(["source_uri", "clip_id", "error_class"], keys=[part.key])
        return report_of(
            [(row["source_uri"], row["clip_id"], row["error_class"]) for row in rows.to_pylist()],
            seconds=float(self.clips.marker(part.key)["seconds"]),
        )


def report_of(rows: list[tuple[str, str, str | None]], *, seconds: float) -> PartReport:
    """Sources that failed have a row without clip id; a dropped shot does not fail its source."""
    sources = {uri for uri, _, _ in rows}
    reasons = Counter(reason for _, clip, reason in rows if not clip and reason is not None)
    num_failed = sum(reasons.values())
    return PartReport(
        num_ok=len(sources) - num_failed,
        num_failed=num_failed,
        seconds=seconds,
        reasons=dict(sorted(reasons.items())),
    )
