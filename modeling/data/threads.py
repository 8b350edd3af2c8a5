"""A small pool of daemon threads: a stuck read never keeps the process from ending."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class DaemonPool:
    """Runs calls in order of submission. Decoding leaves the interpreter lock, so threads scale."""

    def __init__(self, num_threads: int) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"loader-{number}", daemon=True)
            for number in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is read
                future.set_exception(error)
            else:
                future.set_result(result)

        self._calls.put(run)
        return future

    def close(self) -> None:
        """Threads end after the calls that wait; does not wait for them."""
        for _ in self._threads:
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
