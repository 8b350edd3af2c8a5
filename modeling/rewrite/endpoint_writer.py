"""Answers from an OpenAI-compatible server: vLLM, SGLang, `transformers serve`, or a hosted one.

The key comes from the environment and is sent to that server alone; redirects are not followed.
"""

import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

from pydantic import Field

from modeling.rewrite.errors import RewriteError
from modeling.rewrite.prompt import Wording
from modeling.rewrite.rewriter import Ask
from schemas.base import StrictModel

_CONSTRAINTS = ("json_schema", "json_object", "none")  # from strict to none
_MAX_ANSWER_BYTES = 1 << 20
_LATER = (429, 500, 502, 503, 504)


class EndpointConfig(StrictModel):
    url: Annotated[str, Field(pattern=r"^https?://\S+$")] = "http://127.0.0.1:8000/v1"
    model: Annotated[str, Field(min_length=1)]
    key_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "OPENAI_API_KEY"
    concurrency: Annotated[int, Field(ge=1, le=256)] = 4
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    num_tries: Annotated[int, Field(ge=1, le=20)] = 4  # of "come back later", and of no answer
    backoff_s: Annotated[float, Field(ge=0)] = 1.0  # doubled at each try


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """A redirect would carry the key to another place."""
        return


class _RefusedError(Exception):
    """The server did not take the request as it is (400, 422)."""


class EndpointWriter:
    """Asks one server. A server that refuses a JSON schema is asked for JSON, then for words."""

    wording: Wording = "full"

    def __init__(self, config: EndpointConfig) -> None:
        self.name = config.model
        self._config = config
        self._constraint = 0
        self._lock = threading.Lock()
        self._opener = urllib.request.build_opener(_NoRedirect)

    def write(self, asks: Sequence[Ask]) -> list[str]:
        """See Writer."""
        with ThreadPoolExecutor(self._config.concurrency) as threads:
            return list(threads.map(self._write_one, asks))

    def _write_one(self, ask: Ask) -> str:
        while True:
            constraint = self._constraint
            try:
                return self._post(self._body(ask, _CONSTRAINTS[constraint]))
            except _RefusedError as refusal:
                if constraint + 1 == len(_CONSTRAINTS):
                    raise RewriteError(f"{self._where()} refuses the request: {refusal}") from None
                with self._lock:
                    self._constraint = max(self._constraint, constraint + 1)

    def _body(self, ask: Ask, constraint: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._config.model,
            "messages": ask.messages,
            "max_tokens": ask.max_tokens,
            "temperature": ask.temperature,
            "seed": ask.seed,
        }
        if constraint == "json_object":
            body["response_format"] = {"type": "json_object"}
        elif constraint == "json_schema":
            schema = ask.schema(with_patterns=False)
            named = {"name": "structured_caption", "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        return body

    def _post(self, body: dict[str, Any]) -> str:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self._config.key_variable):
            headers["Authorization"] = f"Bearer {key}"
        url = f"{self._config.url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        problem = ""
        for attempt in range(self._config.num_tries):
            if attempt:
                time.sleep(self._config.backoff_s * 2 ** (attempt - 1))
            try:
                with self._opener.open(request, timeout=self._config.timeout_s) as response:
                    return self._content(response.read(_MAX_ANSWER_BYTES))
            except urllib.error.HTTPError as error:
                problem = f"HTTP {error.code} {_told(error)}".strip()
                if error.code in (401, 403):
                    raise RewriteError(
                        f"{self._where()} refuses the key of {self._config.key_variable} "
                        f"(HTTP {error.code})"
                    ) from error
                if error.code in (400, 422):
                    raise _RefusedError(problem) from error
                if error.code not in _LATER:
                    raise RewriteError(f"{self._where()} answers {problem}") from error
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", error)
                problem = f"does not answer ({str(reason) or type(reason).__name__})"
        raise RewriteError(f"{self._where()}: {problem}; {self._config.num_tries} tries")

    def _content(self, data: bytes) -> str:
        try:
            content = json.loads(data)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise RewriteError(f"{self._where()} answers no chat completion") from error
        return content if isinstance(content, str) else ""

    def _where(self) -> str:
        return f"the endpoint {self._config.url}"


def _told(error: urllib.error.HTTPError) -> str:
    """What the server says about it, in one short line."""
    try:
        text = error.read(2000).decode(errors="replace")
    except OSError:
        return ""
    return " ".join(text.split())[:200]
