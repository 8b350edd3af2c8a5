"""The endpoint captioner against a real server on a socket that breaks in every way we know."""

import base64
import io
import json
import logging
import random
from collections.abc import Iterable
from typing import Any

import av
import numpy as np
import pytest

from pipeline.caption.answer import Words
from pipeline.caption.backend import CaptionerError, Described, WindowRequest
from pipeline.caption.config import EndpointConfig, FrameBudget, SamplingConfig, VlmConfig
from pipeline.caption.endpoint import EndpointBackend
from pipeline.caption.frames import window_requests
from pipeline.caption.prompt import instructions
from pipeline.media.config import MediaLimits
from schemas.status import Failure
from tests.media_files import read_number
from tests.pipeline.caption.chat_server import ChatServer, Question, Reply, serving, well
from tests.pipeline.caption.clips import numbered_clips

CONFIG = VlmConfig(frames=FrameBudget(num_frames=2))


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> list[WindowRequest]:
    records = numbered_clips(tmp_path_factory.mktemp("clips"), 8)
    budget, limits = CONFIG.frames, MediaLimits()
    return [request for record in records for request in window_requests(record, budget, limits)]


def ask(
    server: ChatServer,
    requests: Iterable[WindowRequest],
    config: VlmConfig = CONFIG,
    **options: Any,
) -> list[Described]:
    settings = {"model": "seer", "backoff_s": 0.005, "timeout_s": 5.0, "concurrency": 4}
    endpoint = EndpointConfig.model_validate({"url": server.url, **settings, **options})
    backend = EndpointBackend(config, endpoint)
    try:
        backend.setup()
        return list(backend.describe(requests))
    finally:
        backend.close()


def words_of(described: Described) -> Words:
    assert isinstance(described.result, Words), described.result
    return described.result


def failure_of(described: Described) -> Failure:
    assert isinstance(described.result, Failure)
    return described.result


def seen(request: WindowRequest) -> str:
    return f"The numbers are {[read_number(image) for image in request.frames_THWC]}."


def test_no_caption_lands_on_another_clip_whatever_happens_on_the_way(
    requests: list[WindowRequest],
) -> None:
    dice, sent = random.Random(1), [""]

    def chaos(question: Question) -> Reply:
        own = json.dumps(question.words())
        others, fault = sent[-1], dice.randrange(5) if question.turn < 4 else 0
        sent.append(own)
        return [
            Reply(own, delay_s=dice.random() * 0.05),
            Reply(drop=True),
            Reply(others),  # of whoever asked last: a wire to another clip, or the same one twice
            Reply(own, cut=True),
            Reply(sent[dice.randrange(len(sent))], delay_s=dice.random() * 0.05),
        ][fault]

    patient = SamplingConfig(num_tries=10)
    config = CONFIG.model_copy(update={"sampling": patient})
    with serving(ChatServer(chaos)) as server:
        described = ask(server, requests, config, num_tries=12)
    assert sorted(d.request.tag for d in described) == sorted(r.tag for r in requests)
    assert [words_of(d).short_description for d in described] == [
        seen(d.request) for d in described
    ]
    assert sum(d.usage.num_answers for d in described) > len(requests)  # some were not taken


def test_an_answer_to_another_clip_is_never_taken(requests: list[WindowRequest]) -> None:
    first, second = requests[:2]

    def crossed(question: Question) -> Reply:
        return Reply(json.dumps(question.words() | {"request": second.tag}))

    with serving(ChatServer(crossed)) as server:
        (described,) = ask(server, [first])
    assert failure_of(described).error_class == "caption_wrong_clip"


def test_requests_share_their_beginning_and_tell_the_times(requests: list[WindowRequest]) -> None:
    with serving(ChatServer()) as server:
        ask(server, requests[:2])
    one, other = (question.body["messages"][0]["content"] for question in server.questions)
    assert one[0] == other[0] == {"type": "text", "text": instructions(CONFIG)}
    assert [part["text"] for part in one if part["type"] == "text"][1:3] == [
        f"Frame {number + 1} at {time_s:.2f} s:"
        for number, time_s in enumerate(requests[0].times_s)
    ]
    assert one[-1] != other[-1]


@pytest.mark.parametrize(
    "fault",
    [
        Reply(status=429, headers={"Retry-After": "0.01"}, raw=b"{}"),
        Reply(status=503, raw=b"busy"),
        Reply(status=500, raw=b"oops"),
        Reply(raw=b"<html>not JSON"),
        Reply(raw=b'{"choices": []}'),
        Reply("x", cut=True),
        Reply(drop=True),
    ],
    ids=["429", "503", "500", "no json", "no choice", "cut off", "dropped"],
)
def test_a_server_that_stumbles_is_asked_again(requests: list[WindowRequest], fault: Reply) -> None:
    def stumbling(question: Question) -> Reply:
        return fault if question.turn == 0 else well(question)

    with serving(ChatServer(stumbling)) as server:
        (described,) = ask(server, requests[:1])
    assert words_of(described).short_description == seen(requests[0])
    assert len(server.questions) == 2


def test_a_server_that_asks_for_too_much_patience_ends_the_run(
    requests: list[WindowRequest],
) -> None:
    busy = Reply(status=429, headers={"Retry-After": "3600"}, raw=b"{}")
    with (
        serving(ChatServer(lambda question: busy)) as server,
        pytest.raises(CaptionerError, match=r"3600 s more to wait .* run again later"),
    ):
        ask(server, requests[:1])


@pytest.mark.parametrize(
    ("accepted", "named"),
    [
        ({"json_schema", "json_object", None}, "json_schema"),
        ({"json_object", None}, "json_object"),
        ({None}, "prompt"),
    ],
)
def test_a_refused_schema_gives_way_and_the_record_names_what_held(
    requests: list[WindowRequest],
    accepted: set[str | None],
    named: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def picky(question: Question) -> Reply:
        if question.format in accepted:
            return well(question)
        return Reply(status=400, raw=b'{"error": {"message": "response_format not supported"}}')

    caplog.set_level(logging.WARNING, logger="pipeline.caption")
    with serving(ChatServer(picky)) as server:
        described = ask(server, requests[:3], concurrency=1)
        assert {one.constraint for one in described} == {named}
        assert all(isinstance(one.result, Words) for one in described)
        assert len(caplog.records) == (0 if named == "json_schema" else 1)  # said once
        if named != "json_schema":
            (strict, *_) = ask(server, requests[:1], may_degrade=False)
            failure = failure_of(strict)
            assert failure.error_class == "caption_refused_by_server"
            assert "response_format not supported" in failure.error


def test_a_bad_answer_is_asked_for_again_with_another_seed_and_then_fails(
    requests: list[WindowRequest],
) -> None:
    with serving(ChatServer(lambda q: Reply('{"request": "', finish="length"))) as server:
        (described,) = ask(server, requests[:1])
    seeds = [question.body["seed"] for question in server.questions]
    temperatures = [question.body["temperature"] for question in server.questions]
    assert len(set(seeds)) == len(seeds) == CONFIG.sampling.num_tries
    assert temperatures == [0.2, 0.7, 0.7]
    assert failure_of(described).error_class == "caption_truncated"
    assert described.usage.num_answers == 3
    assert (described.usage.prompt_tokens, described.usage.answer_tokens) == (300, 150)


def test_one_clip_that_breaks_the_server_fails_alone(requests: list[WindowRequest]) -> None:
    def poisoned(question: Question) -> Reply:
        is_poison = question.tag == requests[3].tag
        return Reply(status=500, raw=b"out of memory") if is_poison else well(question)

    with serving(ChatServer(poisoned)) as server:
        described = {one.request.tag: one for one in ask(server, requests, num_tries=2)}
    failed = [tag for tag, one in described.items() if isinstance(one.result, Failure)]
    assert failed == [requests[3].tag]
    failure = failure_of(described[failed[0]])
    assert failure.error_class == "caption_server_error"
    assert "out of memory" in failure.error


def test_a_key_comes_from_the_environment_and_a_wrong_one_is_one_line(
    requests: list[WindowRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(ChatServer(key="secret-1")) as server:
        monkeypatch.setenv("SEER_KEY", "secret-1")
        (described,) = ask(server, requests[:1], key_variable="SEER_KEY")
        assert isinstance(described.result, Words)
        monkeypatch.setenv("SEER_KEY", "wrong-2")
        with pytest.raises(CaptionerError, match=r"the key is refused .*SEER_KEY") as refused:
            ask(server, requests[:1], key_variable="SEER_KEY")
    assert "wrong-2" not in str(refused.value)


def test_a_model_without_eyes_is_found_out_before_the_first_clip(
    requests: list[WindowRequest],
) -> None:
    with serving(ChatServer(sees=False)) as server:
        with pytest.raises(CaptionerError, match="'seer' sees no pictures"):
            ask(server, requests)
        assert server.questions == []


def test_no_server_is_one_line(requests: list[WindowRequest]) -> None:
    with serving(ChatServer()) as server:
        pass
    with pytest.raises(CaptionerError, match="no server answers there"):
        ask(server, requests[:1])


def test_a_video_goes_as_one_file_of_the_budgets_frames(requests: list[WindowRequest]) -> None:
    with serving(ChatServer()) as server:
        (described,) = ask(server, requests[:1], media="video")
    assert isinstance(described.result, Words)
    parts = server.questions[0].body["messages"][0]["content"]
    (url,) = (part["video_url"]["url"] for part in parts if part["type"] == "video_url")
    data = base64.b64decode(url.removeprefix("data:video/mp4;base64,"))
    with av.open(io.BytesIO(data), "r") as container:
        frames = list(container.decode(video=0))
    images = [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in frames]
    assert [read_number(image) for image in images] == [
        read_number(image) for image in requests[0].frames_THWC
    ]
