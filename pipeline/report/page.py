"""The report's frame and its sections of words and numbers."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pyarrow as pa

from pipeline.report.tables import PoolTotals, StepFailures
from pipeline.review.verdict import ClipVerdict
from pipeline.run_record import RunRecord
from pipeline.tier.config import TiersConfig
from schemas.shard import Funnel
from schemas.tier import TierName

_STYLE = Path(__file__).parent / "page" / "style.css"
_CELL = "<td{}>{}</td>"


@dataclass(frozen=True, slots=True)
class Report:
    """What every section may speak of."""

    record: RunRecord
    location: str
    joined: pa.Table
    tiers: TiersConfig
    shown_tiers: Sequence[TierName]
    funnels: Mapping[TierName, Funnel]
    pictures: Mapping[str, bytes]  # JPEGs by clip id


@dataclass(frozen=True, slots=True)
class Section:
    key: str
    title: str
    body: str


def page(report: Report, sections: Sequence[Section]) -> str:
    """The whole document."""
    links = "".join(f'<a href="#{one.key}">{escape(one.title)}</a>' for one in sections)
    bodies = "".join(
        f'<section id="{one.key}"><h2>{escape(one.title)}</h2>{one.body}</section>'
        for one in sections
    )
    record = report.record
    said = f"{record.verdict} in {record.seconds:.0f} s, engine {record.engine}"
    error = "" if record.error is None else f'<p class="poor">{escape(record.error)}</p>'
    style = _STYLE.read_text(encoding="utf-8") + _picture_rules(report.pictures)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>reelsieve report</title><style>{style}</style></head><body>"
        f"<nav><b>reelsieve</b>{links}</nav><main>"
        f"<h1>{escape(report.location.rpartition('/')[2])}</h1>"
        f'<p class="quiet">{escape(said)} &middot; <code>{escape(report.location)}</code></p>'
        f"{error}{bodies}</main></body></html>\n"
    )


def tile(report: Report, clip_id: str, words: str, side: str = "") -> str:
    """A clip's picture with a line below; an empty frame where there is no picture."""
    picture = f' class="p{clip_id}"' if clip_id in report.pictures else ""
    return (
        f'<div class="tile {side}" title="{clip_id}"><i{picture} role="img" '
        f'aria-label="clip {clip_id[:12]}"></i>{escape(words)}</div>'
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Numbers are set to the right. Cells are escaped."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def overview_section(report: Report, pool: PoolTotals, verdicts: Iterable[ClipVerdict]) -> Section:
    judged = list(verdicts)
    facts = [
        (f"{pool.num_videos}", "videos"),
        (f"{pool.num_images}", "images"),
        (f"{pool.hours:.2f}", "hours of video"),
        (f"{pool.num_bytes / 2**30:.2f}", "GiB of sources"),
        (f"{report.joined.num_rows}", "clips and dropped shots"),
        *((f"{report.funnels[tier].num_packed}", f"in {tier}") for tier in report.shown_tiers),
    ]
    if judged:
        approved = sum(verdict.approved for verdict in judged)
        facts.append((f"{approved} of {len(judged)}", "judged clips approved"))
    cards = "".join(
        f'<div class="fact"><b>{escape(number)}</b>{escape(what)}</div>' for number, what in facts
    )
    inputs = ", ".join(f"<code>{escape(place)}</code>" for place in report.record.inputs)
    versions = ", ".join(f"{name} {v}" for name, v in sorted(report.record.versions.items()))
    return Section(
        "overview",
        "Overview",
        f'<div class="facts">{cards}</div><p>input: {inputs}</p><p class="quiet">{escape(versions)}'
        f"</p><details><summary>tables and weights</summary>"
        f"{table(('step', 'fingerprint'), sorted(report.record.tables.items()))}"
        f"{table(('weights', 'sha256'), sorted(report.record.weights.items()))}</details>",
    )


def funnel_section(report: Report) -> Section:
    """Per tier: what each rule took away, as the first that failed."""
    released = {result.tier for result in report.record.tiers}
    cards = []
    for tier, funnel in report.funnels.items():
        total = max(1, funnel.num_clips)
        rows = [_step("", step.reason, step.num_clips, total) for step in funnel.rejected]
        rows += [_step("failed", step.reason, step.num_clips, total) for step in funnel.failed]
        word = "packed" if tier in released else "would pass"
        rows.append(_step("passed", word, funnel.num_packed, total))
        cards.append(
            f'<div class="card"><h3>{tier}: {funnel.num_clips} clips</h3>'
            f'<table class="funnel"><tbody>{"".join(rows)}</tbody></table></div>'
        )
    why = "Each clip is counted once, under the first rule that it failed."
    return Section(
        "funnel", "Funnel", f'<p class="quiet">{why}</p><div class="cards">{"".join(cards)}</div>'
    )


def failures_section(failures: Sequence[StepFailures]) -> Section:
    if not failures:
        return Section("failures", "Failures", "<p>No step failed on any item.</p>")
    cards = []
    for one in failures:
        examples = table(("item", "error"), one.examples)
        cards.append(
            f"<h3>{escape(one.step)}: {escape(one.error_class)}, {one.num_items} items</h3>"
            f"{examples}"
        )
    return Section("failures", "Failures", "".join(cards))


def speed_section(report: Report, pool: PoolTotals, price_per_hour: float | None) -> Section:
    """What the last run worked on; what was done before it cost it nothing."""
    record = report.record
    rows = []
    for one in record.passes:
        worked = one.num_ok + one.num_failed
        rate = f"{worked / one.seconds:.2f}" if worked and one.seconds else ""
        rows.append((one.name, one.num_done_before, worked, one.num_failed, one.seconds, rate))
    heads = ("pass", "done before", "in this run", "failed", "seconds", "items a second")
    hours = record.seconds / 3600
    lines = [f"{hours:.3f} hours on the clock."]
    fresh = all(one.num_done_before == 0 for one in record.passes if one.name == "ingest")
    if fresh and hours and pool.hours:
        lines.append(f"{pool.hours / hours:.2f} hours of video an hour.")
    if price_per_hour is not None:
        lines.append(_cost(report, hours, price_per_hour))
    for result in record.tiers:
        if result.captioning is not None:
            lines.extend(f"captions of {result.tier}: {line}" for line in result.captioning.lines())
    words = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return Section("speed", "Throughput and cost", table(heads, rows) + words)


def _cost(report: Report, hours: float, price_per_hour: float) -> str:
    total = hours * price_per_hour
    packed = sum(funnel.num_packed for funnel in report.funnels.values())
    each = f", {1000 * total / packed:.4g} for 1000 packed clips" if packed else ""
    return f"Cost at {price_per_hour:g} an hour for all machines: {total:.4g}{each}."


def _step(kind: str, reason: str, count: int, total: int) -> str:
    width = 100 * count / total
    return (
        f'<tr class="{kind}"><td>{escape(reason)}</td><td class="n">{count}</td>'
        f'<td class="w"><i style="width:{width:.2f}%"></i></td></tr>'
    )


def _cell(value: object) -> str:
    if isinstance(value, int | float):
        return _CELL.format(' class="n"', f"{value:g}")
    return _CELL.format("", escape(str(value)))


def _picture_rules(pictures: Mapping[str, bytes]) -> str:
    """Each picture once, however often it is shown."""
    return "".join(
        f".p{clip_id}{{background-image:url(data:image/jpeg;base64,"
        f"{base64.b64encode(data).decode()})!important}}"
        for clip_id, data in sorted(pictures.items())
    )
