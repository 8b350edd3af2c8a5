import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import PipelineConfig, load_config
from pipeline.report.charts import histogram
from pipeline.report.edges import edges
from pipeline.report.make import make_report
from pipeline.review.log import JudgementLog
from pipeline.run_record import PassTiming, RunRecord, RunRecordError, TierResult
from pipeline.storage import Store
from pipeline.tier.funnel import funnel_counts
from pipeline.tier.join import load_joined
from pipeline.tier.rules import Candidates, decide
from tests.media_files import moving_frames, texture, write_image, write_video
from tests.pipeline.pack.conftest import add
from tests.pipeline.review.makers import judgement
from tests.pipeline.tier.tables import ClipMaker

_VOID = {"meta", "br", "img", "link", "input", "path", "rect"}


class Page(HTMLParser):
    """Checks that tags close in order; collects words and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("href", "src"):
                self.links.append(str(value))
            elif name == "id":
                self.ids.add(str(value))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("report")
    return {
        "film": write_video(folder / "film.mp4", moving_frames(60, 48, 96, seed=1)),
        "picture": write_image(folder / "picture.png", texture(64, 64, seed=3)),
    }


@pytest.fixture(scope="module")
def config() -> PipelineConfig:
    small = ("tier-1.size=[32, 32]", "tier-1.frames=[5, 9]", "image-1.size=[32, 32]")
    return load_config(None, [f"tiers.{one}" for one in small])


class Output:
    """Five clips of a film with speeds around the limit of 0.2, a copy, a picture, a bad file."""

    def __init__(self, folder: Path, media: dict[str, Path], config: PipelineConfig) -> None:
        maker = ClipMaker()
        self.clips = [
            add(
                maker,
                media["film"],
                start=12 * number,
                num_frames=12,
                size_WH=(96, 48),
                cluster=number // 3,
                motion={"speed": 0.1 * number + 0.05},
            )
            for number in range(4)
        ]
        self.copy = add(
            maker,
            media["film"],
            start=48,
            num_frames=12,
            size_WH=(96, 48),
            duplicate_of=self.clips[3],
        )
        self.picture = add(maker, media["picture"], image=True, size_WH=(64, 64))
        maker.add_dropped_shot("film", "too_short", 900, 905)
        maker.add_failed_source("file:///pool/<b>bad</b>&.mp4")
        maker.fail_stage(self.picture, "clarity")
        maker.scores["clarity"] = [
            row
            for row in maker.scores["clarity"]
            if row["clip_id"] != self.picture or not row["ok"]
        ]
        self.store = Store(str(folder))
        self.tables = maker.write(self.store)
        candidates = Candidates(load_joined(self.store, self.tables))
        self.funnel = funnel_counts(decide(candidates, config.tiers, "tier-1"))
        RunRecord(
            verdict="succeeded",
            engine="inline",
            inputs=("/pool/<i>here</i>",),
            seconds=1800.0,
            config=config.model_dump(mode="json"),
            versions={"python": "3.11"},
            tables=self.tables,
            passes=(
                PassTiming(name="split", num_done_before=0, num_ok=8, num_failed=2, seconds=5.0),
            ),
            tiers=(TierResult(tier="tier-1", manifest="m", funnel=self.funnel),),
        ).write(self.store)


@pytest.fixture(scope="module")
def output(
    tmp_path_factory: pytest.TempPathFactory, media: dict[str, Path], config: PipelineConfig
) -> Output:
    """Only looked at; what a test changes it copies."""
    return Output(tmp_path_factory.mktemp("out"), media, config)


@pytest.fixture(scope="module")
def text(output: Output, config: PipelineConfig) -> str:
    return make_report(output.store, config, price_per_hour=3.0).decode()


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


@pytest.fixture
def copied(output: Output, tmp_path: Path) -> Store:
    """Without the pictures that were kept."""
    ignored = shutil.ignore_patterns("report")
    shutil.copytree(output.store.location, tmp_path / "copy", ignore=ignored)
    return Store(str(tmp_path / "copy"))


def test_the_page_stands_alone(text: str, page: Page) -> None:
    assert all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} == page.ids
    assert "<script" not in text
    assert "http" not in re.sub(r"base64,[^)]*", "", text)
    assert not re.search(r"url\((?!data:)|@import", text)


def test_it_says_what_the_run_counted(output: Output, page: Page) -> None:
    words = " ".join(page.text.split())
    for step in (*output.funnel.rejected, *output.funnel.failed):
        assert f"{step.reason} {step.num_clips}" in words
    assert f"packed {output.funnel.num_packed}" in words
    assert output.funnel.num_packed == 2
    assert "split 0 10 2 5 2.00" in words  # pass, before, now, failed, seconds, a second
    assert "Cost at 3 an hour for all machines: 1.5, 750 for 1000 packed clips." in words


def test_names_out_of_the_pool_are_only_words(text: str, page: Page) -> None:
    assert "<b>bad" not in text
    assert "<i>here" not in text
    assert "file:///pool/<b>bad</b>&.mp4" in page.text


def test_failures_are_told_with_examples(output: Output, page: Page) -> None:
    words = " ".join(page.text.split())
    assert "clips: decode_error, 1 items" in words
    assert "clips: too_short" not in words
    assert "clarity: one_color, 1 items" in words
    assert output.picture in words


def test_pictures_are_kept_and_each_is_there_once(
    output: Output, config: PipelineConfig, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for clip_id in (*output.clips, output.copy, output.picture):
        assert text.count(f".p{clip_id}{{background-image") == 1
        assert f'class="p{clip_id}"' in text
    monkeypatch.setattr("pipeline.report.pictures.open_video", None)
    assert make_report(output.store, config, price_per_hour=3.0).decode() == text


def test_a_source_that_is_gone_leaves_an_empty_frame(
    output: Output, copied: Store, config: PipelineConfig, media: dict[str, Path]
) -> None:
    hidden = media["film"].with_suffix(".hidden")
    media["film"].rename(hidden)
    try:
        text = make_report(copied, config).decode()
    finally:
        hidden.rename(media["film"])
    assert f".p{output.picture}{{" in text
    assert f".p{output.clips[0]}{{" not in text
    assert f'title="{output.clips[0]}"' in text


def test_no_source_is_opened_where_no_pictures_are_wanted(
    copied: Store, config: PipelineConfig
) -> None:
    assert b"base64" not in make_report(copied, config, pictures=False)


def test_the_clips_beside_a_limit_are_the_closest(output: Output, config: PipelineConfig) -> None:
    joined = load_joined(output.store, output.tables)
    found = {(e.rule.score, e.rule.side): e for e in edges(joined, config.tiers, ["tier-1"])}
    speed = found["motion.speed", "min"]
    assert [clip for clip, _ in speed.inside] == output.clips[2:]  # 0.25, 0.35
    assert [clip for clip, _ in speed.outside] == output.clips[1::-1]  # 0.15, 0.05
    assert (speed.num_inside, speed.num_outside) == (2, 2)
    assert [value for _, value in speed.outside] == pytest.approx([0.15, 0.05])


def test_judgements_are_counted_without_names(
    output: Output, copied: Store, config: PipelineConfig
) -> None:
    log = JudgementLog(copied)
    log.add(judgement(int(output.clips[2], 16), "Ada Tester"))
    log.add(judgement(int(output.clips[3], 16), "Ada Tester", "reject"))
    page = Page(make_report(copied, config, pictures=False).decode())
    assert "1 of 2 judged clips approved" in " ".join(page.text.split())
    assert "Ada" not in page.text


def test_without_a_run_there_is_no_report(tmp_path: Path, config: PipelineConfig) -> None:
    with pytest.raises(RunRecordError, match="run the pipeline"):
        make_report(Store(str(tmp_path)), config)


def test_a_histogram_counts_every_number_once() -> None:
    numbers = np.array([*np.linspace(0, 1, 500), 40.0, np.nan])
    svg = histogram(numbers, {0.5: ["tier 1-2"], 3.0: ["tier 3"]}, label="a < b")
    counts = [int(count) for count in re.findall(r"<title>(\d+) clips", svg)]
    assert sum(counts) == 501
    assert "tier 1-2: 0.5" in svg
    assert "tier 3: 3" in svg
    assert "a &lt; b" in svg
    low, high = (float(x) for x in re.findall(r'class="limit" d="M([\d.]+)', svg))
    assert 8 <= low < high <= 452


@pytest.mark.parametrize("numbers", [[], [3.0], [0.0, 0.0], [1e-9, 1e9, 1.0], [-5.0, 5.0]])
def test_odd_numbers_give_a_chart_nevertheless(numbers: list[float]) -> None:
    svg = histogram(np.array(numbers), {1.0: ["tier 1"]}, label="x")
    Page(svg)
    assert "nan" not in svg
    assert "inf" not in svg.replace("info", "")
