"""Servers that we start: they answer, they end with us, and they say why when they do not start."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from pipeline.caption import serve
from pipeline.caption.backend import CaptionerError, window_request
from pipeline.caption.config import EndpointConfig, LaunchConfig, SamplingConfig, VlmConfig
from pipeline.caption.endpoint import EndpointBackend
from pipeline.caption.serve import server_command, start_server
from schemas.status import Failure
from tests.pipeline.caption.tiny_vlm import write_tiny_vlm

LAUNCH = LaunchConfig(server="transformers", num_gpus=0, start_timeout_s=280)


def runs(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this be the server."""
    command = [sys.executable, "-c", code]
    monkeypatch.setattr(serve, "server_command", lambda *_: command)


@pytest.mark.slow  # loads torch and transformers twice
@pytest.mark.timeout(600)
def test_transformers_serve_answers_as_an_endpoint_and_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = write_tiny_vlm(tmp_path / "vlm")
    config = VlmConfig(sampling=SamplingConfig(max_tokens=16, num_tries=2))
    launch = LAUNCH.model_copy(update={"arguments": ("--device", "cpu")})
    backend = EndpointBackend(config, EndpointConfig(model=str(folder), launch=launch))
    dice = np.random.default_rng(0)
    images = dice.integers(0, 255, (2, 40, 56, 3), dtype=np.uint8)
    asked = [window_request(str(number), 0, (0.1, 0.5), images) for number in range(2)]
    others = set(psutil.Process().children(recursive=True))
    try:
        backend.setup()  # a model that sees: its pictures cost tokens
        described = list(backend.describe(asked))
        family = set(psutil.Process().children(recursive=True)) - others
    finally:
        backend.close()
    for one in described:  # this server takes no schema, and the weights are random
        assert isinstance(one.result, Failure)
        assert one.result.error_class == "caption_truncated"
        assert (one.usage.num_answers, one.usage.answer_tokens) == (2, 32)
        assert one.usage.prompt_tokens is not None
        assert one.usage.prompt_tokens > 1000
    assert family
    assert [process for process in family if process.is_running()] == []


def test_a_server_ends_when_the_pipe_to_its_worker_closes() -> None:
    code = "import time; print('up', flush=True); time.sleep(60)"
    guard_file = str(Path(serve.__file__).with_name("guard.py"))
    guard = subprocess.Popen(
        [sys.executable, "-P", guard_file, sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert guard.stdin is not None
    assert guard.stdout is not None
    assert guard.stdout.readline() == b"up\n"
    (server,) = psutil.Process(guard.pid).children()
    guard.stdin.close()  # as the kernel does for a worker that is killed
    guard.wait(20)
    guard.stdout.close()
    assert not server.is_running()


def test_a_server_that_ends_at_once_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    runs("import sys; print('one'); print('no GPU is left'); sys.exit(3)", monkeypatch)
    with pytest.raises(CaptionerError, match="ended with status 3: no GPU is left"):
        start_server(LAUNCH, "m", "main")


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    runs("import time; print('loading', flush=True); time.sleep(60)", monkeypatch)
    launch = LAUNCH.model_copy(update={"start_timeout_s": 2.0})
    before = set(psutil.Process().children())
    with pytest.raises(CaptionerError, match="did not answer within 2 s"):
        start_server(launch, "m", "main")
    assert set(psutil.Process().children()) == before


def test_a_server_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CaptionerError, match="vllm is not installed"):
        server_command(LaunchConfig(server="vllm"), "m", "main", 1)
    command = server_command(LAUNCH, "m", "main", 8)
    assert command[1:] == ["serve", "m", "--host", "127.0.0.1", "--port", "8"]
