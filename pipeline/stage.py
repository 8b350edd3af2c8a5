"""The three shapes of work: split (source -> clips), stage (clip -> result), corpus (all rows)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from schemas.base import StrictModel
from schemas.status import Failure

if TYPE_CHECKING:
    from pipeline.score.sampler import Clip

R_co = TypeVar("R_co", bound=StrictModel, covariant=True)


@dataclass(frozen=True, slots=True)
class Resources:
    """What one actor needs. `memory_bytes` 0: not scheduled by memory."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory_bytes: int = 0


class Stage(Protocol[R_co]):
    """Measures clips. Fills the ClipScores field `name`, and only that field."""

    name: ClassVar[str]
    version: ClassVar[int]  # raise it when results change; older parts are then ignored
    resources: ClassVar[Resources]
    result: ClassVar[type[StrictModel]]

    def setup(self) -> None:
        """Load weights. Runs once per actor, never on the driver."""

    def process(self, clips: Sequence["Clip"]) -> Sequence[R_co | Failure]:
        """One result per clip, in order. Pure: no mutation, no I/O, safe to retry."""
