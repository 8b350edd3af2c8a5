"""The verdict: which rule of a tier a clip fails first. Tables in, tables out, no media.

Rules are asked in one order: is there a clip, is it the one that was kept, is it long and large
enough, then the limits in the order of the scores. A number that is missing fails its rule with
`no_<stage>`: that is a failed step, not a rejection.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute

from pipeline.tier.config import Rule, TierConfig, TiersConfig, ladder
from pipeline.tier.geometry import (
    FloatArray,
    IntArray,
    Shapes,
    available_frames,
    clean_pixels,
    effective_rates,
    fit,
    longest_fitting,
)
from pipeline.tier.join import BOX_SIDES
from schemas.tier import IMAGE_TIERS, Bucket, TierName

pc: Any = compute  # its stubs do not know chunked columns

Mask = NDArray[np.bool_]
FAILED_PREFIX = "no_"  # reasons of this form name the step that failed
_BASE_COLUMNS = (
    "clip_id",
    "media_kind",
    "ok",
    "error_class",
    "start_frame",
    "end_frame",
    "end_s",
    "clear_frame",
    "clear_s",
    "fps",
    "is_vfr",
    "width",
    "height",
    "in_corpus",
    "duplicate_of",
    *(f"crop.{side}" for side in BOX_SIDES),
    "approved",
)


@dataclass(frozen=True, slots=True)
class RuleResult:
    """Who fails one rule. `fails` and `missing` never overlap."""

    reason: str
    fails: Mask
    missing: Mask | None = None  # no number to compare: counted under `no_<stage>`
    missing_reason: str = ""


@dataclass(frozen=True, slots=True)
class Decisions:
    """One tier's verdict on every row of a joined table, in its order."""

    tier: TierName
    passed: Mask
    reason_codes: NDArray[np.int16]  # into `reasons`; -1 where passed
    reasons: tuple[str, ...]
    num_frames: IntArray  # 0 where no listed count fits
    shapes: Shapes

    @property
    def num_passed(self) -> int:
        return int(np.count_nonzero(self.passed))

    def reason_of(self, row: int) -> str | None:
        code = int(self.reason_codes[row])
        return None if code < 0 else self.reasons[code]

    def bucket_of(self, row: int) -> Bucket:
        """The bucket that the clip fills. Raises ValueError where no frame count fits."""
        return Bucket(
            num_frames=int(self.num_frames[row]),
            height=int(self.shapes.bucket_height[row]),
            width=int(self.shapes.bucket_width[row]),
        )

    def reason_column(self) -> Any:
        """First failing rule per clip, null where it passed."""
        codes: Any = pa.array(self.reason_codes, mask=self.reason_codes < 0)
        return pa.DictionaryArray.from_arrays(codes, pa.array(self.reasons, pa.string()))


class Candidates:
    """A joined table as number columns, converted once and only where asked for."""

    def __init__(self, joined: pa.Table) -> None:
        self.joined = joined
        self.num_rows = joined.num_rows
        self._numbers: dict[str, FloatArray] = {}
        self._fits: dict[tuple[int, tuple[int, ...]], tuple[IntArray, Shapes]] = {}

    def take(self, rows: NDArray[np.int64]) -> "Candidates":
        return _Subset(self, rows)

    def numbers(self, name: str) -> FloatArray:
        """NaN where null: a score is never NaN."""
        if name not in self._numbers:
            column = self.joined[name].cast(pa.float64()).combine_chunks()
            self._numbers[name] = column.to_numpy(zero_copy_only=False)
        return self._numbers[name]

    def integers(self, name: str) -> IntArray:
        return np.nan_to_num(self.numbers(name)).astype(np.int64)

    def mask(self, name: str) -> Mask:
        """False where null."""
        return self._to_mask(pc.fill_null(self.joined[name], False))

    def is_set(self, name: str) -> Mask:
        return self._to_mask(pc.is_valid(self.joined[name]))

    def is_text(self, name: str, text: str) -> Mask:
        equal = pc.equal(self.joined[name], pa.scalar(text))
        return self._to_mask(pc.fill_null(equal, False))

    def texts(self, name: str, rows: Mask) -> list[str]:
        """The different values of the rows, sorted."""
        values = pc.unique(self.joined[name].filter(pa.array(rows)))
        return sorted(str(value) for value in values.to_pylist())

    @staticmethod
    def _to_mask(column: Any) -> Mask:
        return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.bool_)

    def fit(self, tier: TierConfig) -> tuple[IntArray, Shapes]:
        """Frame count and shape that each clip would have in the tier."""
        key = (tier.area_px, tier.frames)
        if key not in self._fits:
            available = available_frames(
                num_frames=self.integers("end_frame") - self.integers("clear_frame"),
                duration_s=self.numbers("end_s") - self.numbers("clear_s"),
                fps=self.numbers("fps"),
                is_vfr=self.mask("is_vfr"),
            )
            left, top, right, bottom = (self.numbers(f"crop.{side}") for side in BOX_SIDES)
            clean = clean_pixels(
                (left, top, right, bottom), self.integers("width"), self.integers("height")
            )
            self._fits[key] = longest_fitting(available, tier.frames), fit(clean, tier.area_px)
        return self._fits[key]


class _Subset(Candidates):
    """Some rows of other candidates; nothing is converted twice."""

    def __init__(self, whole: Candidates, rows: NDArray[np.int64]) -> None:
        super().__init__(whole.joined)
        self.num_rows = len(rows)
        self._whole = whole
        self._rows = rows

    def numbers(self, name: str) -> FloatArray:
        if name not in self._numbers:
            self._numbers[name] = self._whole.numbers(name)[self._rows]
        return self._numbers[name]

    def mask(self, name: str) -> Mask:
        return self._whole.mask(name)[self._rows]

    def is_set(self, name: str) -> Mask:
        return self._whole.is_set(name)[self._rows]

    def is_text(self, name: str, text: str) -> Mask:
        return self._whole.is_text(name, text)[self._rows]

    def texts(self, name: str, rows: Mask) -> list[str]:
        chosen = np.zeros(self._whole.num_rows, dtype=np.bool_)
        chosen[self._rows[rows]] = True
        return self._whole.texts(name, chosen)


def columns_for(config: TiersConfig, tier: TierName) -> tuple[str, ...]:
    """The columns of a joined table that a decision on this tier reads."""
    scores = {rule.score for name in ladder(tier) for rule in config[name].rules}
    return (*_BASE_COLUMNS, *sorted(scores))


def decide(candidates: Candidates, config: TiersConfig, tier: TierName) -> Decisions:
    """The verdict of `tier` on every clip. A clip passes only where it passes all tiers below."""
    book = _ReasonBook(candidates.num_rows)
    for result in rule_results(candidates, config, tier):
        book.add(result)
    if (below := ladder(tier)[:-1]) and (open_rows := np.flatnonzero(book.codes < 0)).size:
        # The limits nest, so what is left for the tier below to refuse is little or nothing.
        lower = decide(candidates.take(open_rows), config, below[-1])
        for code, reason in enumerate(lower.reasons):
            book.add_first(reason, _scatter(lower.reason_codes == code, open_rows, book.codes.size))
    num_frames, shapes = candidates.fit(config[tier])
    passed = book.codes < 0
    return Decisions(tier, passed, book.codes, tuple(book.reasons), num_frames, shapes)


def rule_results(
    candidates: Candidates, config: TiersConfig, tier: TierName
) -> Iterator[RuleResult]:
    """Every rule of the tier itself, in the order in which they are asked."""
    rules = config[tier]
    yield from _clip_rules(candidates, tier)
    num_frames, shapes = candidates.fit(rules)
    if tier not in IMAGE_TIERS:
        is_clip = candidates.mask("ok") & candidates.is_text("media_kind", "video")
        rates = effective_rates(candidates.numbers("fps"), candidates.mask("is_vfr"))
        yield RuleResult("low_fps", is_clip & ~(rates >= config.min_fps))
        yield RuleResult("too_short", is_clip & (num_frames == 0))
    no_crop = np.isnan(candidates.numbers("crop.left"))
    stretched = ~no_crop & (shapes.kept_area < config.min_aspect_area)
    yield RuleResult("aspect", stretched, no_crop, "no_crop")
    too_small = (shapes.crop.height < shapes.bucket_height) | (
        shapes.crop.width < shapes.bucket_width
    )
    yield RuleResult("low_resolution", ~no_crop & too_small, no_crop, "no_crop")
    for rule in rules.rules:
        yield limit_result(candidates, rule)
    if tier == "tier-5":
        yield RuleResult("not_approved", ~candidates.mask("approved"))


def limit_result(candidates: Candidates, rule: Rule) -> RuleResult:
    """Who lies outside one side of one limit, and who has no number there."""
    numbers = candidates.numbers(rule.score)
    outside = numbers < rule.value if rule.side == "min" else numbers > rule.value
    return RuleResult(rule.reason, outside, np.isnan(numbers), f"{FAILED_PREFIX}{rule.stage}")


def split_reasons(reasons: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(rejections, failed steps), each in the given order."""
    failed = tuple(reason for reason in reasons if reason.startswith(FAILED_PREFIX))
    return tuple(reason for reason in reasons if reason not in failed), failed


def _clip_rules(candidates: Candidates, tier: TierName) -> Iterator[RuleResult]:
    kind = "image" if tier in IMAGE_TIERS else "video"
    yield RuleResult(f"not_{kind}", ~candidates.is_text("media_kind", kind))
    failed = ~candidates.mask("ok")
    dropped = failed & (candidates.numbers("end_frame") > candidates.numbers("start_frame"))
    yield RuleResult("no_clip", np.zeros_like(failed), failed & ~dropped, "no_clip")
    for reason in candidates.texts("error_class", dropped):  # as the split step put it
        yield RuleResult(reason, dropped & candidates.is_text("error_class", reason))
    is_duplicate = candidates.is_set("duplicate_of")
    yield RuleResult("duplicate", is_duplicate, ~candidates.mask("in_corpus"), "no_corpus")


def _scatter(mask: Mask, rows: NDArray[np.int64], num_rows: int) -> Mask:
    full = np.zeros(num_rows, dtype=np.bool_)
    full[rows] = mask
    return full


class _ReasonBook:
    """Keeps, for every row, the first reason that was entered."""

    def __init__(self, num_rows: int) -> None:
        self.codes = np.full(num_rows, -1, dtype=np.int16)
        self.reasons: list[str] = []

    def add(self, result: RuleResult) -> None:
        if result.missing is not None:
            self.add_first(result.missing_reason, result.missing)
        self.add_first(result.reason, result.fails)

    def add_first(self, reason: str, mask: Mask) -> None:
        new = mask & (self.codes < 0)
        if not new.any():
            return
        if reason not in self.reasons:
            self.reasons.append(reason)
        self.codes[new] = self.reasons.index(reason)
