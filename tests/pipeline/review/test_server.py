import io
import json
import os
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message
from typing import Any

import av
import pytest

from pipeline.pack.contents import shard_samples
from pipeline.review.access import TOKEN_VARIABLE, is_loopback, token_for
from pipeline.review.byte_range import UnsatisfiableRangeError, parse_range
from pipeline.review.clips import SpanClips
from pipeline.review.desk import Desk
from pipeline.storage import Store
from tests.pipeline.pack.conftest import Output
from tests.pipeline.review.conftest import NUM_CLIPS, served
from tests.pipeline.review.makers import hex_id

Answer = tuple[int, Message, bytes]


def get(url: str, data: Any = None, **headers: str) -> Answer:
    body = None if data is None else json.dumps(data).encode()
    if body is not None:
        headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def ask(url: str, data: Any = None) -> Any:
    status, _, body = get(url, data)
    assert status == 200, body
    return json.loads(body)


@pytest.fixture
def desk(packed: Output, open_desk: Callable[[Output], Desk]) -> Desk:
    return open_desk(packed)


@pytest.fixture
def address(desk: Desk) -> Iterator[str]:
    with served(desk) as found:
        yield found


def said(clip_id: str, number: int, **more: Any) -> dict[str, Any]:
    return {
        "judgement_id": hex_id(number),
        "clip_id": clip_id,
        "reviewer": "Ada",
        "verdict": "approve",
        **more,
    }


def packed_media(output: Output) -> dict[str, bytes]:
    """The media members as the tar holds them, found without the index."""
    found = {}
    for path in sorted(output.path("shards/tier-1").rglob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".mp4"):
                    file = tar.extractfile(member)
                    assert file is not None
                    found[member.name.removesuffix(".mp4")] = file.read()
    return found


def test_a_clip_is_served_out_of_the_shard_by_byte_range(packed: Output, address: str) -> None:
    media = packed_media(packed)
    assert len(media) == NUM_CLIPS
    for clip_id, content in media.items():
        url = f"{address}/media/{clip_id}"
        status, headers, body = get(url)
        assert (status, headers["Content-Type"], body) == (200, "video/mp4", content)
        status, headers, body = get(url, Range="bytes=10-29")
        assert (status, body) == (206, content[10:30])
        assert headers["Content-Range"] == f"bytes 10-29/{len(content)}"
        assert get(url, Range="bytes=-5")[2] == content[-5:]
        assert get(url, Range=f"bytes={len(content)}-")[0] == 416


def test_a_tier_without_shards_is_cut_out_of_the_sources(
    output: Output, open_desk: Callable[[Output], Desk]
) -> None:
    spans = open_desk(output)
    with served(spans) as address:
        seen = {clip["clip_id"]: clip for clip in ask(f"{address}/api/queue?reviewer=A&count=50")}
        media = {clip_id: get(f"{address}/media/{clip_id}")[2] for clip_id in seen}
    output.run()
    shards = open_desk(output)
    assert spans.clips.clip_ids == shards.clips.clip_ids
    for clip_id, clip in seen.items():
        assert clip == shards.clip(clip_id, "A")
        with av.open(io.BytesIO(media[clip_id]), "r") as container:
            frames = list(container.decode(video=0))
        shape = (len(frames), frames[0].height, frames[0].width)
        assert shape == (clip["num_frames"], clip["height"], clip["width"])


def test_a_source_that_is_gone_is_one_line(
    output: Output, open_desk: Callable[[Output], Desk]
) -> None:
    desk = open_desk(output)
    clip_id = desk.clips.clip_ids[0]
    assert isinstance(desk.clips, SpanClips)
    jobs = desk.clips._jobs
    clip = jobs[clip_id].clip.model_copy(update={"source_uri": "file:///gone.mp4"})
    jobs[clip_id] = jobs[clip_id].model_copy(update={"clip": clip})
    with served(desk) as address:
        status, _, body = get(f"{address}/media/{clip_id}")
    assert status == 422
    assert "gone.mp4" in json.loads(body)["error"]


def test_a_judgement_is_on_disk_when_it_is_answered(
    packed: Output, address: str, open_desk: Callable[[Output], Desk]
) -> None:
    (clip, *_) = ask(f"{address}/api/queue?reviewer=Ada")
    told = said(clip["clip_id"], 1, criteria={"lighting": "poor"}, subsets=["calm"])
    first = ask(f"{address}/api/judgements", told)
    assert first["tier"] == "tier-1"
    assert ask(f"{address}/api/judgements", told) | {"time": ""} == first | {"time": ""}
    again = open_desk(packed)
    (kept,) = again.judgements()
    assert kept.model_dump(mode="json") == first
    assert again.clip(clip["clip_id"], "Ada")["own"] == first
    assert again.clip(clip["clip_id"], "Bo")["own"] is None  # nobody is led by another
    left = ask(f"{address}/api/queue?reviewer=Ada&count=50")
    assert clip["clip_id"] not in {one["clip_id"] for one in left}
    progress = ask(f"{address}/api/progress")
    assert (progress["num_judged"], progress["num_approved"]) == (1, 1)
    assert progress["subsets"] == ["calm"]


def test_times_rise_with_every_judgement(address: str, desk: Desk) -> None:
    for number, clip_id in enumerate(desk.clips.clip_ids):
        ask(f"{address}/api/judgements", said(clip_id, number))
    times = [one.time for one in desk.judgements()]
    assert sorted(set(times)) == times
    assert len(times) == NUM_CLIPS
    assert [one["time"] for one in ask(f"{address}/api/history?reviewer=Ada")] == times[::-1]


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"fix": {"style": "zzzzzzzzzzzz"}}, "fix: style: repeats 'z' 12 times in a row"),
        ({"fix": {"style": "x" * 100_000}}, "fix.style: String should have at most 4000"),
        ({"verdict": "perhaps"}, "verdict: Input should be"),
        ({"clip_id": hex_id(5)}, f"clip_id: tier-1 has no clip {hex_id(5)}"),
        ({"surprise": 1}, "surprise: no such field"),
    ],
)
def test_nonsense_is_refused_in_one_line(
    address: str, desk: Desk, wrong: dict[str, Any], line: str
) -> None:
    told = said(desk.clips.clip_ids[0], 1) | wrong
    status, _, body = get(f"{address}/api/judgements", told)
    assert status == 422
    assert line in json.loads(body)["error"]
    assert len(body) < 600
    assert list(desk.judgements()) == []
    if "fix" in wrong:
        assert get(f"{address}/api/check", wrong["fix"])[0] == 422


def test_two_reviewers_share_the_clips_and_agree_on_some(address: str) -> None:
    """Each judges all that he is given: every clip once, the overlap twice."""
    given: dict[str, list[str]] = {}
    for place, reviewer in enumerate(("Ada", "Bo")):
        given[reviewer] = []
        while clips := ask(f"{address}/api/queue?reviewer={reviewer}&count=2"):
            clip_id = clips[0]["clip_id"]
            given[reviewer].append(clip_id)
            number = 100 * place + len(given[reviewer])
            ask(f"{address}/api/judgements", said(clip_id, number, reviewer=reviewer))
    progress = ask(f"{address}/api/progress")
    common = set(given["Ada"]) & set(given["Bo"])
    assert len(given["Ada"]) == NUM_CLIPS
    assert progress["num_done"] == progress["num_wanted"] == NUM_CLIPS + len(common)
    if common:
        (agreement,) = progress["agreements"]
        assert (agreement["num_clips"], agreement["observed"]) == (len(common), 1.0)


def test_unknown_clips_and_questions_are_refused(address: str) -> None:
    assert get(f"{address}/media/{hex_id(1)}")[0] == 404
    assert get(f"{address}/media/..%2F..%2Frun.json")[0] == 404
    assert get(f"{address}/api/clips/x?reviewer=A")[0] == 404
    assert get(f"{address}/api/queue?reviewer=A&order=sideways")[0] == 422
    assert get(f"{address}/page/..%2Fserver.py")[0] == 404


def test_the_page_the_report_and_the_exports_are_there(address: str, desk: Desk) -> None:
    ask(f"{address}/api/judgements", said(desk.clips.clip_ids[0], 1))
    status, headers, body = get(f"{address}/")
    assert (status, headers["X-Frame-Options"]) == (200, "DENY")
    for name in ("style.css", "review.js", "outbox.js", "media.js", "panels.js", "icon.svg"):
        assert get(f"{address}/page/{name}")[0] == 200
    assert b"http://" not in body.replace(b"http://www.w3.org", b"")
    assert get(f"{address}/report")[2] == b"the report"
    assert get(f"{address}/api/judgements.csv")[2].count(b"\n") == 2
    assert get(f"{address}/api/judgements.parquet")[2][:4] == b"PAR1"


def test_a_token_is_asked_for_everywhere(desk: Desk) -> None:
    with served(desk, token="let me in") as address:
        for path in ("/", "/api/setup", f"/media/{desk.clips.clip_ids[0]}", "/page/review.js"):
            assert get(address + path)[0] == 401
            assert get(address + path, Authorization="Bearer let me out")[0] == 401
            assert get(address + path, Cookie="reelsieve_review=wrong")[0] == 401
            assert get(address + path, Authorization="Bearer let me in")[0] == 200
        assert get(f"{address}/?token=wrong")[0] == 401
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with opener.open(f"{address}/?token=let%20me%20in") as answer:
            assert "token" not in answer.url
        with opener.open(f"{address}/api/setup") as answer:
            assert answer.status == 200


def test_on_loopback_a_foreign_name_is_refused(address: str) -> None:
    assert get(f"{address}/api/setup", Host="evil.example")[0] == 403
    assert get(f"{address}/api/setup", Host="localhost:1")[0] == 200
    assert get(f"{address}/api/setup", Host="[::1]:1")[0] == 200


def test_a_form_of_another_page_cannot_judge(address: str, desk: Desk) -> None:
    body = json.dumps(said(desk.clips.clip_ids[0], 1)).encode()
    headers = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"{address}/api/judgements", body, headers)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    with caught.value as answer:
        assert answer.code == 422
    assert list(desk.judgements()) == []


def test_only_loopback_goes_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8")] == [
        True
    ] * 4
    assert token_for("127.0.0.1") is None
    for host in ("0.0.0.0", "10.0.0.3", "::", "desk.example"):
        drawn = token_for(host)
        assert drawn is not None
        assert len(drawn) >= 24
        assert drawn != token_for(host)
    monkeypatch.setenv(TOKEN_VARIABLE, "mine")
    assert token_for("0.0.0.0") == token_for("127.0.0.1") == "mine"


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None),
        ("bytes=0-", (0, 100)),
        ("bytes=0-0", (0, 1)),
        ("bytes=90-200", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-200", (0, 100)),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=0-1,5-6", None),
        ("lines=0-1", None),
    ],
)
def test_ranges_as_the_standard_has_them(header: str | None, span: tuple[int, int] | None) -> None:
    assert parse_range(header, 100) == span


def test_a_range_behind_the_end_cannot_be_had() -> None:
    for header in ("bytes=100-", "bytes=-0"):
        with pytest.raises(UnsatisfiableRangeError):
            parse_range(header, 100)


def test_the_shown_sample_is_the_packed_one(packed: Output, desk: Desk) -> None:
    folder = Store(packed.store.full("shards/tier-1"))
    for tar in sorted(packed.path("shards/tier-1").rglob("*.tar")):
        path = os.path.relpath(tar, folder.location)
        for sample in shard_samples(folder, path, path.replace(".tar", ".index.parquet")):
            assert desk.clips.sample(sample.clip_id) == sample
