import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.config import PipelineConfig
from pipeline.review.log import JudgementLog
from pipeline.run_record import RunRecord, TierResult
from pipeline.storage import Store
from schemas.shard import Funnel
from tests.pipeline.pack.conftest import Output
from tests.pipeline.review.conftest import NUM_CLIPS
from tests.pipeline.review.makers import judgement


@pytest.fixture
def run(packed: Output, config: PipelineConfig) -> Path:
    """An output as a run leaves it."""
    funnel = Funnel(num_clips=NUM_CLIPS, num_packed=NUM_CLIPS, rejected=(), failed=())
    RunRecord(
        verdict="succeeded",
        engine="inline",
        inputs=(),
        config=config.model_dump(mode="json"),
        versions={},
        tables=packed.tables,
        tiers=(TierResult(tier="tier-1", manifest="m", funnel=funnel),),
    ).write(packed.store)
    return Path(packed.store.location)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that the command ends with."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    assert "\n" not in said
    return said


@contextmanager
def desk(run: Path, *options: str) -> Iterator[str]:
    """`python -m pipeline review` in a process of its own. Its address as it prints it."""
    command = [sys.executable, "-m", "pipeline", "review", str(run), "--tier", "1", "--port", "0"]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"tier-1: {NUM_CLIPS} clips\n"
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGINT)
            _, complaints = process.communicate(timeout=60)
    assert "Traceback" not in complaints


def test_the_desk_of_a_run_uses_the_limits_of_that_run(run: Path) -> None:
    with desk(run) as address:
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{address}api/setup") as answer:
            assert json.load(answer)["num_clips"] == NUM_CLIPS


def test_another_address_comes_with_a_token(run: Path) -> None:
    with desk(run, "--host", "0.0.0.0") as address:
        place, _, token = address.partition("/?token=")
        assert len(token) >= 24
        port = place.rpartition(":")[2]
        with pytest.raises(urllib.error.HTTPError, match="401") as caught:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/setup")
        caught.value.close()


def test_judgements_go_out_and_in_and_are_compared(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = JudgementLog(Store(str(run)))
    for reviewer, verdict in (("Ada", "approve"), ("Bo", "reject")):
        log.add(judgement(1, reviewer, verdict))
    file, other = tmp_path / "all.csv", tmp_path / "other"
    for arguments in (
        ("export", str(run), str(file)),
        ("import", str(other), str(file)),
        ("compact", str(other)),
        ("agreement", str(other)),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["judgements", *arguments])
        assert caught.value.code == 0
    said = capsys.readouterr().out
    assert "2 of them new" in said
    assert "verdict: Ada and Bo: kappa 0.00, equal on 0% of 1 clips" in said
    assert JudgementLog(Store(str(other))).read() == log.read()


def test_what_cannot_be_is_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "run the pipeline" in refusal(capsys, "review", str(tmp_path / "absent"))
    assert "no tier '9'" in refusal(capsys, "review", str(run), "--tier", "9")
    assert "tier-4 holds no clip" in refusal(capsys, "review", str(run), "--tier", "4")
    assert ".csv or .parquet" in refusal(capsys, "judgements", "export", str(run), "x.txt")
    assert "cannot be bound" in refusal(
        capsys, "review", str(run), "--tier", "1", "--host", "203.0.113.7"
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = refusal(capsys, "review", str(run), "--tier", "1", "--port", port)
    assert "choose another --port" in line


def test_without_its_packages_the_desk_says_what_to_install(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert ".[review]" in refusal(capsys, "review", str(run), "--tier", "1")


def test_the_report_is_written_where_it_is_wanted(run: Path, tmp_path: Path) -> None:
    for options in ([], ["--html", str(tmp_path / "new" / "page.html"), "--no-pictures"]):
        with pytest.raises(SystemExit) as caught:
            main(["report", str(run), *options])
        assert caught.value.code == 0
    assert (run / "report" / "report.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "new" / "page.html").stat().st_size > 0
    assert not any(name.endswith(".tmp") for name in os.listdir(tmp_path / "new"))
