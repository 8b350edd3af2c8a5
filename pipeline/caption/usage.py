"""What describing cost: answers, tokens, rates and money, from the rows and marks of its table."""

from collections.abc import Collection, Iterator
from typing import Any

from pipeline.caption.config import PriceConfig
from pipeline.tables import Table
from schemas.base import StrictModel

_COLUMNS = ["ok", "num_answers", "prompt_tokens", "answer_tokens"]


class CaptionUsage(StrictModel):
    """Of some parts. `worker_seconds` are those of the workers, beside each other ones summed."""

    num_described: int
    num_failed: int
    num_answers: int
    prompt_tokens: int | None  # None: the server does not count
    answer_tokens: int | None
    worker_seconds: float
    elapsed_s: float
    gpu_hours: float  # 0 for an endpoint that we did not start
    cost: float | None  # None: no price is known
    currency: str

    def lines(self) -> Iterator[str]:
        """For a person: rates, then the cost."""
        num_clips = self.num_described + self.num_failed
        elapsed = max(self.elapsed_s, 1e-9)
        rates = [f"{num_clips / elapsed:.2f} clips/s"]
        for name, count in (("prompt", self.prompt_tokens), ("answer", self.answer_tokens)):
            if count is not None:
                rates.append(f"{count / elapsed:.0f} {name} tokens/s")
        if self.gpu_hours > 0:
            rates.append(f"{num_clips / self.gpu_hours:.0f} clips per GPU-hour")
            if self.answer_tokens is not None:
                rates.append(
                    f"{self.answer_tokens / self.gpu_hours:.0f} answer tokens per GPU-hour"
                )
        yield (
            f"described {self.num_described} clips, {self.num_failed} failed, "
            f"{self.num_answers} answers in {self.elapsed_s:.0f} s: {', '.join(rates)}"
        )
        if self.cost is None:
            yield "cost: unknown (set [caption.price])"
        else:
            per_1000 = 1000 * self.cost / max(1, num_clips)
            yield (
                f"cost: {self.cost:.4f} {self.currency}, {per_1000:.4f} per 1000 clips, "
                f"{self.gpu_hours:.4f} GPU-hours"
            )


def caption_usage(
    table: Table,
    keys: Collection[str],
    *,
    elapsed_s: float,
    num_gpus: float,
    price: PriceConfig,
) -> CaptionUsage:
    """Of the finished parts `keys` of the `descriptions` table; `num_gpus` per worker."""
    rows = table.read(_COLUMNS, keys=keys).to_pylist()
    asked = [row for row in rows if row["num_answers"]]
    seconds = sum(float(table.marker(key)["seconds"]) for key in keys)
    prompt, answer = _total(asked, "prompt_tokens"), _total(asked, "answer_tokens")
    gpu_hours = seconds * num_gpus / 3600
    return CaptionUsage(
        num_described=sum(row["ok"] for row in rows),
        num_failed=sum(not row["ok"] for row in rows),
        num_answers=sum(row["num_answers"] for row in asked),
        prompt_tokens=prompt,
        answer_tokens=answer,
        worker_seconds=round(seconds, 3),
        elapsed_s=round(elapsed_s, 3),
        gpu_hours=round(gpu_hours, 6),
        cost=_cost(price, gpu_hours, prompt, answer),
        currency=price.currency,
    )


def _total(rows: list[dict[str, Any]], column: str) -> int | None:
    counts = [row[column] for row in rows]
    return None if None in counts else sum(counts)


def _cost(
    price: PriceConfig, gpu_hours: float, prompt: int | None, answer: int | None
) -> float | None:
    """What the known prices add up to; None when none is, or a count that one needs is missing."""
    cost, is_known = 0.0, False
    for amount, unit in (
        (gpu_hours, price.gpu_hour),
        (None if prompt is None else prompt / 1e6, price.million_prompt_tokens),
        (None if answer is None else answer / 1e6, price.million_answer_tokens),
    ):
        if unit is None:
            continue
        if amount is None:
            return None
        cost, is_known = cost + amount * unit, True
    return round(cost, 6) if is_known else None
