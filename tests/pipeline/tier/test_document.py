"""docs/tiers.md says what the shipped file says, and defines every score."""

import re
from pathlib import Path

from pipeline.tier.config import load_tiers
from pipeline.tier.render import limits_markdown
from pipeline.tier.scores import SCORE_PATHS

TEXT = (Path(__file__).parents[3] / "docs" / "tiers.md").read_text()


def test_the_limits_are_those_of_the_shipped_file() -> None:
    (table,) = re.findall(r"<!-- limits -->\n(.*)\n<!-- /limits -->", TEXT, re.DOTALL)
    assert table == limits_markdown(load_tiers())


def test_every_score_is_defined() -> None:
    definitions = TEXT.split("## Scores")[1]
    assert [score for score in SCORE_PATHS if f"`{score}`" not in definitions] == []
