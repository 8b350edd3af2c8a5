"""The page in a real Chromium: play, judge by keyboard, undo, reload, two people, no connection."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from pipeline.review.desk import Desk
from pipeline.review.judgement import Judgement
from pipeline.review.log import counted
from tests.pipeline.pack.conftest import Output
from tests.pipeline.review.browser import Browser, Tab, chromium, find_browser
from tests.pipeline.review.conftest import served

pytestmark = pytest.mark.skipif(find_browser() is None, reason="no Chromium on this machine")

_SHOWN = "document.getElementById('facts').textContent.split(' ').at(-1)"
_LINE = "document.getElementById('line').textContent"


async def sit_down(browser: Browser, address: str, name: str) -> Tab:
    tab = await browser.tab(address)
    await tab.until("document.getElementById('ask-name')?.open")
    await tab.type(name)
    await tab.key("Enter")
    await playing(tab)
    return tab


async def playing(tab: Tab) -> str:
    """Wait until the picture moves. The beginning of the clip's id."""
    await tab.until("!document.querySelector('dialog[open]')")
    await tab.until("document.querySelector('video')?.videoWidth > 0")
    await tab.until("document.querySelector('video').currentTime > 0")
    return str(await tab.js(_SHOWN))


async def saved(tab: Tab) -> None:
    await tab.until(f"{_LINE} === 'saved'")


async def judge(tab: Tab, key: str) -> str:
    """Press the key; the clip that was judged. Returns when another thing is shown."""
    before = await playing(tab)
    await tab.key(key)
    await tab.until(f"document.getElementById('desk').hidden || {_SHOWN} !== '{before}'")
    return before


def kept(desk: Desk) -> list[Judgement]:
    return list(desk.judgements())


def test_judge_by_keyboard_mend_the_caption_undo_and_reload(
    tmp_path: Path, packed: Output, open_desk: Callable[[Output], Desk]
) -> None:
    async def scene(browser: Browser, *, desk: Desk, address: str) -> None:
        tab = await sit_down(browser, address, "Ada")
        clip = await playing(tab)
        for key in ("1", "3", "3"):
            await tab.key(key)
        await tab.key("t")
        await tab.type("Slow Motion")
        await tab.key("Enter")
        await tab.key("Escape")
        await tab.key("e")
        await tab.type("zzzzzzzzzzzz")
        await tab.key("Escape")
        why = "document.querySelector('.field.wrong .why')?.textContent"
        assert "repeats 'z'" in await tab.until(why)
        await tab.key("a")  # refused while the caption is nonsense
        await tab.until("document.getElementById('toast').classList.contains('shown')")
        assert await tab.js(_SHOWN) == clip
        await tab.js("document.querySelector('#caption textarea').select()")
        await tab.key("e")
        await tab.js("document.querySelector('#caption textarea').select()")
        await tab.type("A texture glides to the left.")
        await tab.until("!document.querySelector('.field.wrong')")
        await tab.key("Escape")

        await tab.call("Page.reload")  # the draft is still there
        assert await playing(tab) == clip
        assert await tab.js("document.querySelector('#criteria .poor').dataset.name") == (
            "color_harmony"
        )
        assert await judge(tab, "a") == clip
        await saved(tab)
        (one,) = kept(desk)
        assert one.clip_id.startswith(clip)
        assert (one.reviewer, one.verdict, one.subsets) == ("Ada", "approve", ("slow-motion",))
        assert one.criteria.color_harmony == "poor"
        assert one.criteria.object_emphasis == "good"
        assert one.fix.changes == {"short_description": "A texture glides to the left."}

        other = await judge(tab, "r")
        await saved(tab)
        await tab.key("u")
        await tab.until(f"{_SHOWN} === '{other}'")
        await saved(tab)
        assert [j.verdict for j in kept(desk)] == ["approve", "reject", "withdraw"]
        await tab.call("Page.reload")  # undo reaches back over a reload
        await playing(tab)
        await tab.until("!document.getElementById('undo').disabled")
        await tab.key("u")
        await tab.until(f"{_SHOWN} === '{clip}'")
        await saved(tab)
        assert counted(kept(desk)) == []
        typed = "document.querySelector('#caption textarea').value"
        assert await tab.js(typed) == "A texture glides to the left."
        await tab.js("document.querySelector('video').pause()")
        before = await tab.js("document.querySelector('video').currentTime")
        await tab.key("ArrowRight")
        await tab.until(f"document.querySelector('video').currentTime !== {before}")
        assert tab.errors == []

    play(tmp_path, open_desk(packed), scene)


def test_two_reviewers_and_a_dropped_connection_lose_nothing(
    tmp_path: Path, packed: Output, open_desk: Callable[[Output], Desk]
) -> None:
    async def scene(browser: Browser, *, desk: Desk, address: str) -> None:
        ada = await sit_down(browser, address, "Ada")
        bo = await sit_down(browser, address, "Bo")
        both_see = await playing(ada) == await playing(bo)
        if both_see:
            (clip,) = [c for c in desk.clips.clip_ids if c.startswith(await playing(ada))]
            assert desk.assignment.wanted(clip) == 2
        await ada.until("document.getElementById('count').textContent !== ''")

        await ada.offline(True)
        said = [await judge(ada, "a"), await judge(ada, "r")]
        await ada.until(f"{_LINE}.startsWith('2 kept here')")
        assert kept(desk) == []
        said.append(await judge(bo, "a"))
        await saved(bo)
        await ada.offline(False)
        await saved(ada)
        verdicts = [(j.clip_id[:12], j.reviewer, j.verdict) for j in kept(desk)]
        assert sorted(verdicts) == sorted(
            [(said[0], "Ada", "approve"), (said[1], "Ada", "reject"), (said[2], "Bo", "approve")]
        )

        # not even a reload in between loses what was not sent
        await ada.js("window.fetch = () => Promise.reject(new TypeError('gone'))")
        unsent = await judge(ada, "a")
        await ada.until(f"{_LINE}.includes('kept here')")
        assert len(kept(desk)) == 3
        await ada.call("Page.reload")
        await ada.until(f"document.readyState === 'complete' && {_LINE} === 'saved'")
        assert [(j.clip_id[:12], j.reviewer) for j in kept(desk)][-1] == (unsent, "Ada")
        assert len({j.judgement_id for j in kept(desk)}) == len(kept(desk)) == 4

        # to the end: every clip has its judgements
        for tab in (ada, bo):
            while not await tab.js("document.getElementById('desk').hidden"):
                await judge(tab, "a")
            await saved(tab)
        progress = desk.progress()
        assert progress["num_done"] == progress["num_wanted"]
        assert ada.errors == bo.errors == []

    play(tmp_path, open_desk(packed), scene)


def play(tmp_path: Path, desk: Desk, scene: Callable[..., Coroutine[Any, Any, None]]) -> None:
    async def inside(address: str) -> None:
        async with chromium(tmp_path / "profile") as browser:
            await scene(browser, desk=desk, address=address)

    with served(desk) as address:
        asyncio.run(inside(address))
