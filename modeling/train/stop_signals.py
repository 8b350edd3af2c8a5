"""How a run is asked to end: a signal, or an event that the program around it sets."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """`signal`: the first one that came, SIGTERM for the event; None while nobody asked."""

    def __init__(self, event: threading.Event | None, *, heeds_second: bool) -> None:
        self._event = event
        self._heeds_second = heeds_second
        self._signal: signal.Signals | None = None

    @property
    def signal(self) -> signal.Signals | None:
        if self._signal is None and self._event is not None and self._event.is_set():
            self._signal = signal.SIGTERM
        return self._signal

    @contextmanager
    def listening(self) -> Iterator[None]:
        """The first SIGTERM or SIGINT ends the run after its step; the second at once.

        Of several processes the second is not heeded: a launcher passes on what the terminal or
        the scheduler has sent to every process already. In a thread, where Python takes no
        signals, nothing is heeded.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        stopping = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(number, self._receive) for number in stopping]
        try:
            yield
        finally:
            for number, handler in zip(stopping, before, strict=True):
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._signal is None:
            self._signal = signal.Signals(number)
        elif self._heeds_second:
            raise KeyboardInterrupt
