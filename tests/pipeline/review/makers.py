"""Judgements with only what a test cares about."""

import itertools
from typing import Any

from pipeline.review.judgement import Judgement, parse_judgement

_numbers = itertools.count(1)


def hex_id(number: int) -> str:
    return f"{number:032x}"


def judgement(
    clip: int = 1, reviewer: str = "Ada", verdict: str = "approve", **more: Any
) -> Judgement:
    """Later than every one made before it."""
    number = next(_numbers)
    values = {
        "judgement_id": hex_id(number),
        "clip_id": hex_id(clip),
        "tier": "tier-4",
        "reviewer": reviewer,
        "time": f"2026-01-01T00:00:00.{number:06d}Z",
        "verdict": verdict,
        **more,
    }
    return parse_judgement(values)


def withdrawal(of: Judgement) -> Judgement:
    clip = int(of.clip_id, 16)
    return judgement(clip, of.reviewer, "withdraw", withdraws=of.judgement_id)
