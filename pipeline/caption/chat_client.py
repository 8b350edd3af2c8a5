"""Speaks to an OpenAI-compatible server: one answer per question, or why there is none.

Who is at fault decides what happens. A busy or broken server is asked again, later and later; a
server that is gone, or refuses the key, ends the run (CaptionerError) and fails no clip; a server
that lives and refuses or breaks on one question fails that question alone.
"""

import asyncio
import hashlib
import json
import os
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp

from pipeline.caption.backend import CaptionerError
from pipeline.caption.config import EndpointConfig

_MAX_ANSWER_BYTES = 8 << 20
_PROBE_TIMEOUT_S = 15.0
_KEY_STATUSES = {401, 403}
_BUSY_STATUSES = {429, 503}
_GONE_STATUSES = {502, 503, 504}  # what a gateway says of a server behind it
_BROKEN_STATUSES = {408, 409, 425, 500, 502, 504, 520, 522, 524, 529}
_TRANSPORT_ERRORS = (aiohttp.ClientError, asyncio.TimeoutError, OSError)


class QuestionRefused(Exception):  # noqa: N818 - an answer of its kind
    """The server lives and will not answer this question: status and its own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status


class QuestionFailed(Exception):  # noqa: N818 - an answer of its kind
    """The server lives, answers others, and breaks on this question at every try."""


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """`finish` is `stop`, `length`, or the server's own word. Tokens are None where not said."""

    text: str
    finish: str
    refusal: str | None
    prompt_tokens: int | None
    answer_tokens: int | None


class ChatClient:
    """Lives in one event loop. The key is read from the environment at `open` and never shown."""

    def __init__(self, config: EndpointConfig, url: str) -> None:
        self._config = config
        self._url = url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None
        self.num_answered = 0  # by this client: a server that never answered is not trusted

    async def open(self) -> None:
        headers = {"Accept": "application/json"}
        if key := os.environ.get(self._config.key_variable, "").strip():
            headers["Authorization"] = f"Bearer {key}"
        self._session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=self._config.timeout_s),
            connector=aiohttp.TCPConnector(limit=0),  # bounded by who asks
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, body: dict[str, Any], name: str) -> ChatAnswer:
        """The answer to one question. `name` (of clip, window and try) sets the jitter.

        Raises QuestionRefused, QuestionFailed or CaptionerError.
        """
        started = time.monotonic()
        num_tries = num_waits = 0
        while True:
            try:
                return await self._ask_once(body, name)
            except _Later as later:
                if later.is_busy:
                    num_waits += 1
                else:
                    num_tries += 1
                    if num_tries >= self._config.num_tries:
                        await self._blame(str(later), num_tries)
                wait_s = later.wait_s
                if wait_s is None:
                    wait_s = self._delay(num_waits if later.is_busy else num_tries, name)
                problem = str(later)
            waited_s = time.monotonic() - started
            if waited_s + wait_s > self._config.give_up_after_s:
                raise CaptionerError(
                    f"{self._url}: no answer in {waited_s:.0f} s and {wait_s:.0f} s more to wait "
                    f"({problem}); run again later"
                )
            await asyncio.sleep(wait_s)

    async def models(self) -> list[str]:
        """Names that the server lists; none where it lives and cannot say.

        Raises CaptionerError when nobody answers.
        """
        assert self._session is not None
        timeout = aiohttp.ClientTimeout(total=_PROBE_TIMEOUT_S)
        try:
            async with self._session.get(f"{self._url}/models", timeout=timeout) as response:
                status, content = response.status, await _content(response)
            if status in _KEY_STATUSES:
                raise self._key_error(status, _message(content))
        except _TRANSPORT_ERRORS as error:
            raise self._gone_error(_one_line(error)) from error
        if status in _GONE_STATUSES:
            raise self._gone_error(f"HTTP {status}: {_message(content)}")
        try:
            reply = json.loads(content)
        except (ValueError, RecursionError):
            return []
        listed = reply.get("data") if isinstance(reply, dict) else None
        entries = listed if isinstance(listed, list) else []
        return [str(entry.get("id")) for entry in entries if isinstance(entry, dict)]

    async def _ask_once(self, body: dict[str, Any], name: str) -> ChatAnswer:
        """Raises _Later, QuestionRefused or CaptionerError."""
        assert self._session is not None
        url, headers = f"{self._url}/chat/completions", {"X-Request-Id": name}
        try:
            async with self._session.post(url, json=body, headers=headers) as response:
                status = response.status
                wait_s = _seconds(response.headers.get("Retry-After"))
                content = await _content(response)
        except _TRANSPORT_ERRORS as error:
            raise _Later(_one_line(error)) from error
        if status == 200:
            answer = _read(_parse(content))
            self.num_answered += 1
            return answer
        message = _message(content)
        if status in _KEY_STATUSES:
            raise self._key_error(status, message)
        if status in _BUSY_STATUSES or status in _BROKEN_STATUSES:
            is_busy = status in _BUSY_STATUSES
            raise _Later(f"HTTP {status}: {message}", wait_s=wait_s, is_busy=is_busy)
        raise QuestionRefused(status, message)

    async def _blame(self, problem: str, num_tries: int) -> None:
        """Raises CaptionerError for a server that is gone, QuestionFailed for one that lives."""
        await self.models()
        if self.num_answered == 0:
            raise CaptionerError(
                f"{self._url}: the server is there and has answered nothing ({problem}, "
                f"{num_tries} tries)"
            )
        raise QuestionFailed(f"{problem}, {num_tries} tries")

    def _key_error(self, status: int, message: str) -> CaptionerError:
        return CaptionerError(
            f"{self._url}: the key is refused (HTTP {status}: {message}); set "
            f"{self._config.key_variable} in the environment of the workers"
        )

    def _gone_error(self, why: str) -> CaptionerError:
        return CaptionerError(
            f"{self._url}: no server answers there ({why}); start it and run again"
        )

    def _delay(self, num_tries: int, name: str) -> float:
        """Doubled at each try; the jitter follows from the name, so a rerun waits alike."""
        digest = hashlib.sha256(f"{name}:{num_tries}".encode()).digest()
        jitter = 0.5 + int.from_bytes(digest[:4], "big") / 2**33
        longest = min(
            self._config.max_backoff_s, self._config.backoff_s * 2.0 ** min(num_tries - 1, 30)
        )
        return longest * jitter


class _Later(Exception):  # noqa: N818 - caught in this file
    """Ask again. `wait_s`: what the server asks for; `is_busy`: it says so itself."""

    def __init__(self, problem: str, *, wait_s: float | None = None, is_busy: bool = False) -> None:
        super().__init__(problem)
        self.wait_s = wait_s
        self.is_busy = is_busy


async def _content(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        content += chunk
        if len(content) > _MAX_ANSWER_BYTES:
            raise aiohttp.ClientPayloadError(f"more than {_MAX_ANSWER_BYTES} bytes")
    return bytes(content)


def _parse(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _Later(f"the server's reply is broken: {error}") from error


def _read(reply: Any) -> ChatAnswer:
    try:
        choice = reply["choices"][0]
        message = choice["message"]
        content = message.get("content")
        refusal = message.get("refusal")
        finish = str(choice.get("finish_reason"))
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise _Later(f"the server's reply holds no choice: {str(reply)[:100]!r}") from error
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    usage = reply.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return ChatAnswer(
        text=content if isinstance(content, str) else "",
        finish=finish,
        refusal=refusal if isinstance(refusal, str) and refusal else None,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        answer_tokens=_count(usage.get("completion_tokens")),
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _message(content: bytes) -> str:
    """What a server says of an error, in the forms that servers use, as one short line."""
    text = content.decode("utf-8", "replace")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = text
    if isinstance(found, dict):
        found = found.get("error") or found.get("detail") or found.get("message") or found
        found = found.get("message", found) if isinstance(found, dict) else found
    return " ".join(str(found).split())[:300] or "no reason given"


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After is a number of seconds or a date."""
    if not retry_after:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None


def _one_line(error: BaseException) -> str:
    line = str(error) or type(error).__name__
    return " ".join(line.split())[:300]
