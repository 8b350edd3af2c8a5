"""Captions from an OpenAI-compatible server: many requests in flight, each matched by its tag."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from functools import partial
from typing import Any

from pipeline.caption.answer import AnswerDefect
from pipeline.caption.backend import (
    CaptionerError,
    Described,
    Usage,
    WindowRequest,
    try_seed,
)
from pipeline.caption.chat_body import CONSTRAINTS, chat_body, probe_body
from pipeline.caption.chat_client import ChatAnswer, ChatClient, QuestionFailed, QuestionRefused
from pipeline.caption.config import EndpointConfig, VlmConfig
from pipeline.caption.judge import judge, try_temperature
from pipeline.caption.serve import Server, start_server
from schemas.status import Failure

logger = logging.getLogger(__name__)


class EndpointBackend:
    """Asks a server that runs, or one that it starts itself and ends again."""

    def __init__(self, config: VlmConfig, endpoint: EndpointConfig) -> None:
        self._config = config
        self._endpoint = endpoint
        self._constraint: str = endpoint.constraint
        self._loop = asyncio.new_event_loop()
        self._server: Server | None = None
        self._client: ChatClient | None = None

    def setup(self) -> None:
        """Raises CaptionerError: no server, a refused key, a model that sees no pictures."""
        endpoint = self._endpoint
        url = endpoint.url
        if endpoint.launch is not None:
            assert endpoint.model is not None
            self._server = start_server(endpoint.launch, endpoint.model, endpoint.revision)
            url = self._server.url
        self._client = ChatClient(endpoint, url)
        self._loop.run_until_complete(self._greet(self._client))

    def describe(self, requests: Iterable[WindowRequest]) -> Iterator[Described]:
        """See CaptionBackend. Yields in the order in which answers come in."""
        answers = self._describe(iter(requests))
        try:
            while True:
                try:
                    yield self._loop.run_until_complete(anext(answers))
                except StopAsyncIteration:
                    return
        finally:
            self._loop.run_until_complete(answers.aclose())

    def close(self) -> None:
        if self._loop.is_closed():
            return
        if self._client is not None:
            self._loop.run_until_complete(self._client.close())
        self._loop.close()
        if self._server is not None:
            self._server.stop()

    async def _greet(self, client: ChatClient) -> None:
        """Who is there, and does the model see? Tokens of a picture must count."""
        await client.open()
        listed = await client.models()
        endpoint = self._endpoint
        try:
            blind = await client.ask(probe_body(endpoint, with_picture=False), "probe-text")
            seeing = await client.ask(probe_body(endpoint, with_picture=True), "probe-picture")
        except QuestionRefused as error:
            names = f"; it lists {', '.join(listed[:5])}" if listed else ""
            raise CaptionerError(
                f"{endpoint.url}: model {endpoint.model!r} refuses a picture or is not there "
                f"({error}){names}"
            ) from error
        except QuestionFailed as error:
            raise CaptionerError(f"{endpoint.url}: {error}") from error
        counts = (blind.prompt_tokens, seeing.prompt_tokens)
        if counts[0] is not None and counts[0] == counts[1]:
            raise CaptionerError(
                f"{endpoint.url}: model {endpoint.model!r} sees no pictures: a question costs "
                f"{counts[0]} tokens with one and without; choose a vision-language model"
            )

    async def _describe(self, requests: Iterator[WindowRequest]) -> AsyncGenerator[Described]:
        loop = asyncio.get_running_loop()
        running: set[asyncio.Task[Described]] = set()
        next_request: asyncio.Future[WindowRequest | None] | None = None
        is_open, problem = True, None
        take = partial(next, requests, None)
        try:
            while (is_open or running) and problem is None:
                if is_open and next_request is None and len(running) < self._endpoint.concurrency:
                    next_request = loop.run_in_executor(None, take)  # decodes; answers go on
                waiting: set[asyncio.Future[Any]] = set(running)
                if next_request is not None:
                    waiting.add(next_request)
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if next_request is not None and next_request.done():
                    request, next_request = next_request.result(), None
                    if request is None:
                        is_open = False
                    else:
                        running.add(asyncio.create_task(self._describe_one(request)))
                for task in [task for task in running if task.done()]:
                    running.remove(task)
                    try:
                        yield task.result()
                    except CaptionerError as error:
                        problem = error
            if problem is not None:
                raise problem
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            if next_request is not None:
                await next_request

    async def _describe_one(self, request: WindowRequest) -> Described:
        """Asks until an answer is good, a bounded number of times. Raises CaptionerError."""
        started = time.monotonic()
        usage = Usage()
        failure = Failure(error_class="caption_empty", error="never asked")
        constraint, seed = self._constraint, 0
        for attempt in range(self._config.sampling.num_tries):
            seed = try_seed(self._config.sampling.seed, request.tag, attempt)
            try:
                answer, constraint = await self._ask(request, attempt, seed)
            except QuestionRefused as error:
                failure = Failure(error_class="caption_refused_by_server", error=str(error))
                break
            except QuestionFailed as error:
                failure = Failure(error_class="caption_server_error", error=str(error))
                break
            usage += Usage(
                num_answers=1,
                prompt_tokens=answer.prompt_tokens,
                answer_tokens=answer.answer_tokens,
            )
            try:
                if answer.refusal is not None:
                    raise AnswerDefect(
                        "caption_refusal", f"the model refuses: {answer.refusal:.80}"
                    )
                was_cut = answer.finish == "length"
                words = judge(answer.text, self._config, request.tag, was_cut=was_cut)
            except AnswerDefect as defect:
                failure = Failure(error_class=defect.kind, error=str(defect))
                continue
            usage = usage.model_copy(update={"seconds": round(time.monotonic() - started, 3)})
            return Described(request, words, usage, constraint, seed)
        usage = usage.model_copy(update={"seconds": round(time.monotonic() - started, 3)})
        return Described(request, failure, usage, constraint, seed)

    async def _ask(self, request: WindowRequest, attempt: int, seed: int) -> tuple[ChatAnswer, str]:
        """The answer and the constraint that it was asked under.

        A refusal may be the constraint's fault or the question's own: the next weaker constraint
        tells. One that is answered stays in use, and the log says so once.
        """
        assert self._client is not None
        first = CONSTRAINTS.index(self._constraint)
        last = len(CONSTRAINTS) if self._endpoint.may_degrade else first + 1
        refusal: QuestionRefused | None = None
        for constraint in CONSTRAINTS[first:last]:
            body = chat_body(
                request,
                self._config,
                self._endpoint,
                constraint=constraint,
                seed=seed,
                temperature=try_temperature(self._config, attempt),
            )
            name = f"{request.clip_id}-{request.place}-{request.frames_sha256[:8]}-{attempt}"
            try:
                answer = await self._client.ask(body, name)
            except QuestionRefused as error:
                refusal = refusal or error
                continue
            if refusal is not None and CONSTRAINTS.index(self._constraint) == first:
                logger.warning(
                    "%s refuses the constraint %s (%s): %s from here on",
                    self._endpoint.url,
                    self._constraint,
                    refusal,
                    constraint,
                )
                self._constraint = constraint
            return answer, constraint
        assert refusal is not None
        raise refusal
