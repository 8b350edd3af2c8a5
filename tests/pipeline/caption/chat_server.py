"""A chat server on a real socket that sees its pictures and misbehaves as it is told to."""

import base64
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np

from tests.media_files import read_number


@dataclass
class Question:
    """A request as the server understands it; `turn` counts those with the same tag, from 0."""

    body: dict[str, Any]
    tag: str
    turn: int

    @property
    def numbers(self) -> list[int]:
        """What the pictures say."""
        return [read_number(image) for image in pictures(self.body)]

    @property
    def format(self) -> str | None:
        wanted = self.body.get("response_format")
        return None if wanted is None else str(wanted["type"])

    def words(self) -> dict[str, str]:
        """A good answer, with the numbers that were seen."""
        return {
            "request": self.tag,
            "short_description": f"The numbers are {self.numbers}.",
            "dense_description": f"A sheet with black and white bars shows {self.numbers} in turn.",
            "background": "The wall behind the sheet is black.",
            "style": "abstract",
            "shot_type": "medium shot",
            "lighting": "Even light without a direction.",
            "atmosphere": "neutral",
        }


@dataclass
class Reply:
    """What goes back over the socket. `drop` closes it instead, `cut` sends half of the body."""

    text: str = ""
    finish: str = "stop"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    delay_s: float = 0.0
    drop: bool = False
    cut: bool = False
    tokens: tuple[int, int] = (100, 50)


Script = Callable[[Question], Reply]


def well(question: Question) -> Reply:
    return Reply(json.dumps(question.words()))


@dataclass
class ChatServer:
    """`script` answers questions about clips; `sees` what a probe of the model finds."""

    script: Script = well
    sees: bool = True
    key: str | None = None
    url: str = ""
    questions: list[Question] = field(default_factory=list)
    _turns: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, body: dict[str, Any]) -> Reply:
        found = re.search(r"Request: (\w+)", json.dumps(body["messages"]))
        if found is None:
            num_pictures = len(pictures(body)) if self.sees else 0
            return Reply("Hi.", tokens=(10 + 16 * num_pictures, 1))
        with self._lock:
            question = Question(body, found.group(1), self._turns[found.group(1)])
            self._turns[question.tag] += 1
            self.questions.append(question)
        return self.script(question)


def pictures(body: dict[str, Any]) -> list[Any]:
    """Decoded, RGB."""
    found = []
    for part in body["messages"][0]["content"]:
        if part["type"] == "image_url":
            data = base64.b64decode(part["image_url"]["url"].split(",", 1)[1])
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            assert image is not None
            found.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    return found


@contextmanager
def serving(server: ChatServer) -> Iterator[ChatServer]:
    """On a free port of the loopback until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(self._refusal() or Reply(raw=b'{"data": [{"id": "seer"}]}'))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._send(self._refusal() or server.reply(body))

        def _refusal(self) -> Reply | None:
            wanted = None if server.key is None else f"Bearer {server.key}"
            if wanted is None or self.headers.get("Authorization") == wanted:
                return None
            return Reply(status=401, raw=b'{"error": {"message": "bad key"}}')

        def _send(self, reply: Reply) -> None:
            time.sleep(reply.delay_s)
            if reply.drop:
                self.close_connection = True
                self.connection.close()
                return
            data = completion(reply) if reply.raw is None else reply.raw
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if reply.cut else data)
            if reply.cut:
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            """Silence."""

        def handle(self) -> None:
            try:
                super().handle()
            except (OSError, ValueError):
                return  # the other side or we ourselves have closed

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    server.url = f"http://127.0.0.1:{httpd.server_address[1]}/v1"
    thread = threading.Thread(
        target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def completion(reply: Reply) -> bytes:
    message = {"role": "assistant", "content": reply.text}
    return json.dumps(
        {
            "choices": [{"index": 0, "message": message, "finish_reason": reply.finish}],
            "usage": {"prompt_tokens": reply.tokens[0], "completion_tokens": reply.tokens[1]},
        }
    ).encode()
