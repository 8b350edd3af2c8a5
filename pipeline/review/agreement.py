"""How far reviewers agree beyond chance: Cohen's kappa (1960) of each pair, on common clips."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from pipeline.review.judgement import CRITERIA, Judgement
from pipeline.review.log import counted
from schemas.base import StrictModel

VERDICT = "verdict"


class Agreement(StrictModel):
    """Of two reviewers about one question. `kappa` None: both always gave one same answer."""

    question: str  # `verdict`, or one of the criteria
    reviewers: tuple[str, str]
    num_clips: int
    observed: float  # share of the clips with equal answers
    kappa: float | None


def agreements(judgements: Iterable[Judgement]) -> list[Agreement]:
    """Every pair that judged a clip in common: the verdict first, then each criterion."""
    last = counted(judgements)
    found: list[Agreement] = []
    for question in (VERDICT, *CRITERIA):
        answers: dict[str, dict[str, str]] = defaultdict(dict)
        for one in last:
            given = one.verdict if question == VERDICT else getattr(one.criteria, question)
            if given is not None:
                answers[one.reviewer][one.clip_id] = given
        found.extend(_pairs(question, answers))
    return found


def cohens_kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    """None where chance alone explains full agreement: both gave one and the same answer only."""
    total = len(first)
    if total != len(second) or total == 0:
        raise ValueError(f"need pairs of answers, got {total} and {len(second)}")
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / total
    shares, others = Counter(first), Counter(second)
    by_chance = sum(shares[answer] * others[answer] for answer in shares) / total**2
    return None if by_chance == 1.0 else (observed - by_chance) / (1.0 - by_chance)


def _pairs(question: str, answers: Mapping[str, Mapping[str, str]]) -> Iterable[Agreement]:
    for one, other in itertools.combinations(sorted(answers), 2):
        common = sorted(answers[one].keys() & answers[other].keys())
        if not common:
            continue
        first = [answers[one][clip_id] for clip_id in common]
        second = [answers[other][clip_id] for clip_id in common]
        equal = sum(a == b for a, b in zip(first, second, strict=True))
        yield Agreement(
            question=question,
            reviewers=(one, other),
            num_clips=len(common),
            observed=equal / len(common),
            kappa=cohens_kappa(first, second),
        )
