from pathlib import Path

import pytest

from pipeline.review.config import ReviewConfig
from pipeline.review.verdict import clip_verdicts, with_approvals
from pipeline.storage import Store
from tests.pipeline.review.makers import hex_id, judgement, withdrawal


@pytest.mark.parametrize(
    ("verdicts", "min_approvals", "approved"),
    [
        ("a", 1, True),
        ("r", 1, False),
        ("ar", 1, False),
        ("aar", 1, True),
        ("a", 2, False),
        ("aa", 2, True),
        ("aarr", 2, False),
    ],
)
def test_approved_is_enough_approvals_and_more_than_rejections(
    verdicts: str, min_approvals: int, approved: bool
) -> None:
    words = {"a": "approve", "r": "reject"}
    judged = [judgement(1, f"R{place}", words[v]) for place, v in enumerate(verdicts)]
    (verdict,) = clip_verdicts(judged, ReviewConfig(min_approvals=min_approvals)).values()
    assert verdict.approved is approved
    assert verdict.num_approvals == verdicts.count("a")
    assert verdict.num_rejections == verdicts.count("r")


def test_subsets_and_fixes_come_from_approvals_and_the_later_fix_holds() -> None:
    judged = [
        judgement(1, "Ada", subsets=("calm",), fix={"style": "early", "lighting": "soft light"}),
        judgement(1, "Bo", subsets=("blue",), fix={"style": "later"}),
        judgement(1, "Cy", "reject", subsets=("bad",), fix={"style": "rejected"}),
    ]
    (verdict,) = clip_verdicts(judged, ReviewConfig()).values()
    assert verdict.subsets == ("blue", "calm")
    assert verdict.fix.changes == {"style": "later", "lighting": "soft light"}


def test_what_is_withdrawn_is_as_if_never_said() -> None:
    one = judgement(1)
    assert clip_verdicts([one, withdrawal(one)], ReviewConfig()) == {}


def test_the_approvals_do_not_know_who_and_when(tmp_path: Path) -> None:
    found = []
    for name in ("Ada", "Someone Else"):
        store = Store(str(tmp_path / name))
        judged = [judgement(2, name, note="secret"), judgement(1, name, "reject")]
        tables = with_approvals(store, {"clips": "x"}, clip_verdicts(judged, ReviewConfig()))
        assert tables["clips"] == "x"
        root = Path(store.location)
        files = [path for path in root.rglob("*") if path.is_file()]
        assert files
        assert not any(name.encode() in path.read_bytes() for path in files)
        marker = root / "tables" / "approvals"
        found.append((tables, {str(p.relative_to(root)) for p in marker.rglob("*.parquet")}))
    assert found[0] == found[1]


def test_another_verdict_gives_another_table(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    yes = clip_verdicts([judgement(1)], ReviewConfig())
    no = clip_verdicts([judgement(1, verdict="reject")], ReviewConfig())
    assert list(yes) == list(no) == [hex_id(1)]
    assert with_approvals(store, {}, yes) != with_approvals(store, {}, no)
