"""Two runs on one output, another version, no permission: refused, with nothing changed."""

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from pipeline.engine.errors import OutputLockedError, OutputVersionError
from pipeline.engine.output_lock import LOCK_FILE, VERSION_FILE, locked_output
from pipeline.storage import StorageError, Store

_HOLD = """
import sys
from pipeline.engine.output_lock import locked_output
with locked_output(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["local", "memory"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "local" else f"memory://{uuid.uuid4().hex}"


def test_a_second_run_is_refused_until_the_first_is_over(location: str) -> None:
    with (
        locked_output(location),
        pytest.raises(OutputLockedError, match=f"{os.getpid()}.*wait for it"),
        locked_output(location),
    ):
        pass
    with locked_output(location) as store:
        assert json.loads(store.read_bytes(VERSION_FILE)) == {"schema_version": 1}


def test_a_killed_run_leaves_no_stale_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(OutputLockedError, match=str(holder.pid)), locked_output(str(tmp_path)):
            pass
        holder.send_signal(signal.SIGKILL)
    with locked_output(str(tmp_path)):
        pass


def test_a_lock_object_is_stale_when_its_process_is_gone_or_its_heartbeat_is_old() -> None:
    location = f"memory://{uuid.uuid4().hex}"
    store = Store(location)
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    here = {"host": os.uname().nodename, "time_s": 4e9}
    for body, is_stale in (
        ({**here, "pid": int(gone.stdout)}, True),
        ({**here, "pid": 1}, False),
        ({"host": "elsewhere", "pid": 1, "time_s": 4e9}, False),
        ({"host": "elsewhere", "pid": 1, "time_s": 0.0}, True),
    ):
        store.write_bytes(LOCK_FILE, json.dumps(body).encode())
        if is_stale:
            with locked_output(location):
                pass
        else:
            with pytest.raises(OutputLockedError), locked_output(location):
                pass


def test_the_output_of_another_version_is_refused_and_left_alone(location: str) -> None:
    store = Store(location)
    for text in (b'{"schema_version": 99}', b"no json"):
        store.write_bytes(VERSION_FILE, text)
        with pytest.raises(OutputVersionError, match="this is 1"), locked_output(location):
            pass
        assert store.list("") == [VERSION_FILE]
        assert store.read_bytes(VERSION_FILE) == text


def test_an_output_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    place = str(tmp_path / "file" / "out")
    with (
        pytest.raises(StorageError, match="choose another --output") as caught,
        locked_output(place),
    ):
        pass
    assert "\n" not in str(caught.value)
