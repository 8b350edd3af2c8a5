"""Starts `vllm serve` or `transformers serve` beside the worker that asks it, and ends it again.

The server is the child of a small guard (pipeline/caption/guard.py), which ends it when the worker
closes it and also when the worker is killed.
"""

import logging
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import weakref
from pathlib import Path
from typing import IO

from pipeline.caption.backend import CaptionerError
from pipeline.caption.config import LaunchConfig

logger = logging.getLogger(__name__)

_GUARD = Path(__file__).with_name("guard.py")
_END_TIMEOUT_S = 30.0
_POLL_S = 0.5


class Server:
    """A running server. It ends with `stop`, with this object, or with this process."""

    def __init__(self, url: str, guard: "subprocess.Popen[bytes]", log: IO[bytes]) -> None:
        self.url = url
        self._guard = guard
        self._log = log
        self._finalizer = weakref.finalize(self, _end, guard, log)

    @property
    def guard_pid(self) -> int:
        return self._guard.pid

    def stop(self) -> None:
        """End the server and wait for it. A second call is fine."""
        self._finalizer()

    def wait(self, timeout_s: float) -> None:
        """Until it answers. Raises CaptionerError with the server's last words."""
        deadline = time.monotonic() + timeout_s
        while True:
            if (code := self._guard.poll()) is not None:
                raise CaptionerError(f"the server ended with status {code}: {self._last_words()}")
            if _answers(f"{self.url}/models"):
                return
            if time.monotonic() > deadline:
                raise CaptionerError(
                    f"the server did not answer within {timeout_s:g} s: {self._last_words()}"
                )
            time.sleep(_POLL_S)

    def _last_words(self) -> str:
        self._log.flush()
        self._log.seek(0)
        lines = [line for line in self._log.read().decode("utf-8", "replace").splitlines() if line]
        return lines[-1].strip()[:300] if lines else "it said nothing"


def start_server(launch: LaunchConfig, model: str, revision: str) -> Server:
    """Start it and wait until it answers. Raises CaptionerError."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = server_command(launch, model, revision, port)
    log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
    logger.info("starting %s", " ".join(command))
    guard = subprocess.Popen(
        [sys.executable, "-P", str(_GUARD), *command],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    server = Server(f"http://127.0.0.1:{port}/v1", guard, log)
    try:
        server.wait(launch.start_timeout_s)
    except BaseException:
        server.stop()
        raise
    return server


def server_command(launch: LaunchConfig, model: str, revision: str, port: int) -> list[str]:
    """Its command line. Raises CaptionerError when the server is not installed."""
    name = launch.server
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise CaptionerError(f"{name} is not installed on this worker; install it or set a url")
    place = ["--host", "127.0.0.1", "--port", str(port)]
    if name == "vllm":
        place += ["--revision", revision] if revision != "unknown" else []
    return [found, "serve", model, *place, *launch.arguments]


def _answers(url: str) -> bool:
    """Any answer counts: `transformers serve` lists no models where the hub's cache is missing."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except OSError:
        return False


def _end(guard: "subprocess.Popen[bytes]", log: IO[bytes]) -> None:
    """The guard ends the server when its input closes."""
    if guard.stdin is not None:
        guard.stdin.close()
    try:
        guard.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        logger.warning("ending the server's guard %d by force", guard.pid)
        guard.kill()
        guard.wait()
    log.close()
