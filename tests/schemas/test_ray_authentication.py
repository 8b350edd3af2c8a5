"""How a Ray is met: decided once, from the address and what lies around."""

import os
import sys
from pathlib import Path

import pytest

from schemas.ray_authentication import choose_authentication


@pytest.fixture
def nothing_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A shell and a home without a word of Ray, and a process that has not imported it."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # so that it is put back at the end
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    return tmp_path


@pytest.mark.usefixtures("nothing_said")
def test_a_ray_of_our_own_gets_a_token_of_its_own() -> None:
    choose_authentication("local")
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(bytes.fromhex(os.environ["RAY_AUTH_TOKEN"])) == 32


@pytest.mark.usefixtures("nothing_said")
def test_after_ray_was_imported_there_is_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", sys)
    choose_authentication("local")
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_a_running_ray_is_met_by_the_token_of_the_home_folder(nothing_said: Path) -> None:
    choose_authentication("auto")
    assert os.environ.pop("RAY_AUTH_MODE") == "disabled"
    (nothing_said / ".ray").mkdir()
    (nothing_said / ".ray" / "auth_token").write_text("a" * 64)
    choose_authentication("auto")
    assert os.environ["RAY_AUTH_MODE"] == "token"


def test_what_is_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    choose_authentication("local")
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
