"""Sections about numbers: a histogram of every score, and the clips beside every limit."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from pipeline.report.charts import histogram
from pipeline.report.edges import Edge
from pipeline.report.page import Report, Section, tile
from pipeline.tier.rules import Candidates
from pipeline.tier.scores import SCORE_PATHS
from schemas.tier import IMAGE_TIERS, VIDEO_TIERS


def scores_section(report: Report) -> Section:
    """Scores with limits first; the others can be opened."""
    candidates = Candidates(report.joined)
    limited: list[str] = []
    others: list[str] = []
    for score in SCORE_PATHS:
        numbers = candidates.numbers(score)
        if not np.isfinite(numbers).any():
            continue
        lines = _lines(report, score)
        low, middle, high = np.nanpercentile(numbers, (5, 50, 95))
        card = (
            f'<div class="card"><h3>{score}</h3>{histogram(numbers, lines, label=score)}'
            f'<p class="quiet">{np.isfinite(numbers).sum()} clips, median {middle:.3g}, '
            f"5 % below {low:.3g}, 5 % above {high:.3g}</p></div>"
        )
        (limited if lines else others).append(card)
    more = (
        f"<details><summary>{len(others)} scores without a limit</summary>"
        f'<div class="cards">{"".join(others)}</div></details>'
    )
    return Section("scores", "Scores", f'<div class="cards">{"".join(limited)}</div>{more}')


def edges_section(report: Report, edges: Sequence[Edge]) -> Section:
    """Contact sheets: the last clips that a limit lets in, and the first that it keeps out."""
    why = (
        "The clips whose number is closest to the limit, whatever else they fail: "
        "left what it lets in, right what it keeps out."
    )
    parts = [f'<p class="quiet">{why}</p>']
    parts.extend(_edge(report, edge) for edge in edges if edge.num_outside)
    if idle := [_edge(report, edge) for edge in edges if not edge.num_outside]:
        summary = f"{len(idle)} limits that keep no clip out"
        parts.append(f"<details><summary>{summary}</summary>{''.join(idle)}</details>")
    return Section("limits", "Beside each limit", "".join(parts))


def _edge(report: Report, edge: Edge) -> str:
    rule = edge.rule
    word = "at least" if rule.side == "min" else "at most"
    return (
        f"<h3>{rule.score} {word} {rule.value:g} <small>{', '.join(edge.tiers)}</small></h3>"
        f'<div class="sides">{_side(report, edge.inside, edge.num_inside, "in")}'
        f"{_side(report, edge.outside, edge.num_outside, 'out')}</div>"
    )


def _side(report: Report, clips: Sequence[tuple[str, float]], total: int, side: str) -> str:
    tiles = "".join(tile(report, clip_id, f"{value:.4g}", side) for clip_id, value in clips)
    word = "inside" if side == "in" else "outside"
    return f'<div><small>{total} {word}</small><div class="sheet">{tiles}</div></div>'


def _lines(report: Report, score: str) -> dict[float, list[str]]:
    """Limit -> the tiers that ask for it, of every tier of the kinds of media that are there."""
    stage, _, name = score.partition(".")
    kinds = set(report.joined["media_kind"].to_pylist())
    lines: dict[float, list[str]] = defaultdict(list)
    for tier in (*VIDEO_TIERS[:-1], *IMAGE_TIERS):
        if ("image" if tier in IMAGE_TIERS else "video") not in kinds:
            continue
        limit = report.tiers[tier].limits.get(stage, {}).get(name)
        for value in () if limit is None else (limit.min, limit.max):
            if value is not None:
                lines[value].append(tier)
    return {value: _short(names) for value, names in lines.items()}


def _short(tiers: list[str]) -> list[str]:
    """`tier 1-4` for tiers that follow each other; tier 5 has the limits of tier 4."""
    videos = [name.removeprefix("tier-") for name in tiers if name.startswith("tier-")]
    others = [name for name in tiers if not name.startswith("tier-")]
    if not videos:
        return others
    span = videos[0] if len(videos) == 1 else f"{videos[0]}-{videos[-1]}"
    return [f"tier {span}", *others]
