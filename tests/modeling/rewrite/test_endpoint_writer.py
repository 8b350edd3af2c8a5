"""A real local server that fails in the ways that servers do."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from modeling.rewrite.endpoint_writer import EndpointConfig, EndpointWriter
from modeling.rewrite.errors import RewriteError
from modeling.rewrite.prompt import messages
from modeling.rewrite.rewriter import Ask, RewriteConfig, Rewriter

_ANSWER = '{"short_description":"Two cats run."}'


class _Server(ThreadingHTTPServer):
    """`faults` are given first: a status, or the body to answer with."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults: list[int | bytes] = []
        self.seen: list[tuple[dict[str, Any], str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(length))
        self.server.seen.append((body, self.headers["Authorization"]))
        fault = self.server.faults.pop(0) if self.server.faults else None
        answer = {"choices": [{"message": {"content": _ANSWER}}]}
        data = fault if isinstance(fault, bytes) else json.dumps(answer).encode()
        self.send_response(fault if isinstance(fault, int) else 200)
        if fault == 302:
            self.send_header("Location", "http://127.0.0.1:1/")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[_Server]:
    made = _Server()
    thread = threading.Thread(
        target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def _writer(url: str, **settings: Any) -> EndpointWriter:
    return EndpointWriter(EndpointConfig(url=url, model="m", backoff_s=0.0, **settings))


def test_a_prompt_is_rewritten_with_the_key_of_the_environment(
    server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    writer = _writer(server.url, key_variable="MY_KEY")
    [rewrite] = Rewriter(writer, RewriteConfig()).rewrite(["two cats run"])
    assert rewrite.text == "Two cats run."
    body, key = server.seen[0]
    assert key == "Bearer secret"
    assert body["response_format"]["json_schema"]["schema"]["required"] == ["short_description"]


def test_it_comes_back_later_when_asked_to(server: _Server) -> None:
    server.faults = [429, 503]
    [rewrite] = Rewriter(_writer(server.url), RewriteConfig()).rewrite(["two cats run"])
    assert rewrite.num_answers == 1
    assert len(server.seen) == 3


def test_a_refused_schema_gives_way_to_a_looser_one_for_good(server: _Server) -> None:
    server.faults = [400]
    writer = _writer(server.url, concurrency=1)
    Rewriter(writer, RewriteConfig()).rewrite(["two cats run", "two cats sit"])
    kinds = [body["response_format"]["type"] for body, _ in server.seen]
    assert kinds == ["json_schema", "json_object", "json_object"]


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ([401], r"refuses the key of OPENAI_API_KEY \(HTTP 401\)"),
        ([400, 400, 422], "refuses the request: HTTP 422"),
        ([404], "answers HTTP 404"),
        ([302], "answers HTTP 302"),
        ([500] * 4, "HTTP 500.*; 4 tries"),
        ([b"<html>"], "answers no chat completion"),
    ],
)
def test_what_cannot_be_mended_is_one_line(
    server: _Server, faults: list[int | bytes], message: str
) -> None:
    server.faults = faults
    ask = Ask(messages("a", "normal", "full"), "normal", "a", 0, 0.0)
    with pytest.raises(RewriteError, match=message) as caught:
        _writer(server.url).write([ask])
    assert "\n" not in str(caught.value)


def test_a_server_that_is_down_is_named() -> None:
    ask = Ask(messages("a", "normal", "full"), "normal", "a", 0, 0.0)
    with pytest.raises(RewriteError, match=r"127.0.0.1:9/v1: does not answer .*; 2 tries"):
        _writer("http://127.0.0.1:9/v1", num_tries=2).write([ask])
