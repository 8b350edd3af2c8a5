"""What an evaluation is asked, and what it found: the content of report.json."""

from typing import Annotated, Literal

from pydantic import Field

from modeling.data.corpus import Verify
from modeling.data.view import ViewConfig
from modeling.evaluate.dit_loss import BinnedLoss
from modeling.sampler import SampleRequest
from schemas.base import StrictModel


class EvaluationConfig(StrictModel):
    """What an evaluation asks. `view` None: as the run looked at its end, else whole samples."""

    num_per_bucket: Annotated[int, Field(ge=1)] = 16
    num_bins: Annotated[int, Field(ge=1, le=1000)] = 10
    seed: int = 0
    view: ViewConfig | None = None
    verify: Verify = "index"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    tile_above_pixels: Annotated[int, Field(ge=0)] = 65 * 512 * 512
    requests: tuple[SampleRequest, ...] = ()  # of a DiT: what is sampled


class BucketFidelity(StrictModel):
    """Means over the samples of a bucket; `flicker` in 8-bit levels, 0 for images."""

    num_clips: int
    psnr_db: float
    psnr_db_min: float
    ssim: float
    flicker: float


class Report(StrictModel):
    """`losses` and `fidelity`: weights ("raw", "ema"), then bucket. `files` lie beside it."""

    kind: Literal["dit", "vae"]
    step: int | None
    manifest_hash: str
    config: EvaluationConfig
    view: ViewConfig
    encoders: dict[str, str] = {}
    losses: dict[str, dict[str, BinnedLoss]] = {}
    fidelity: dict[str, dict[str, BucketFidelity]] = {}
    unreadable: dict[str, str] = {}
    files: tuple[str, ...] = ()
