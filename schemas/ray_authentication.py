"""How the processes of a Ray know each other. Settled before Ray is imported.

Ray reads the way of authentication once, at import. Left to itself it writes a token into the home
folder; from then on one half of its commands asks for the token and the other does not send it.
Shared by the curation and the trainer, which both start or join a Ray.
"""

import os
import secrets
import sys
from pathlib import Path


def choose_authentication(address: str) -> None:
    """Set RAY_AUTH_MODE for this process and its children, unless it is set.

    A Ray of our own gets a token that lives in their environment only. A running one is met as
    `ray start` left it: by token where there is one, else without.

    Args:
        address: "local" for a Ray of our own, else that of a running one.

    """
    if "RAY_AUTH_MODE" in os.environ:
        return
    if address == "local":
        if "ray" in sys.modules:  # it has read its choice already: none
            os.environ["RAY_AUTH_MODE"] = "disabled"
            return
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        return
    has_token = (Path.home() / ".ray" / "auth_token").exists() or any(
        name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    )
    os.environ["RAY_AUTH_MODE"] = "token" if has_token else "disabled"
