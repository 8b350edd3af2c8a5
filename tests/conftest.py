"""Fixtures for every test. One process, one thread per library: tests share two cores."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

MEDIA_VARIABLE = "REELSIEVE_MEDIA"


def pytest_configure() -> None:
    """Before any test module imports a numeric library or Ray.

    Ray reads its way of authentication once, at import: one for all tests of this process, so that
    their order does not matter.
    """
    os.environ["RAY_AUTH_MODE"] = "disabled"
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


@pytest.fixture
def labelled_media() -> Path:
    """Real clips and photos with labels, where the machine has them; never part of the project."""
    location = os.environ.get(MEDIA_VARIABLE)
    if not location:
        pytest.skip(f"{MEDIA_VARIABLE} does not name a folder of labelled media")
    return Path(location)


@pytest.fixture(autouse=True)
def no_errors_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A test that logged an ERROR of ours without asking for it has failed."""
    yield
    ours = ("pipeline", "modeling", "schemas")
    errors = [
        record.getMessage()
        for record in caplog.get_records("call")
        if record.levelno >= logging.ERROR and record.name.split(".")[0] in ours
    ]
    assert errors == []
