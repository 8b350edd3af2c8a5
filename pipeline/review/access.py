"""Who may talk to the desk. On loopback: this machine. Elsewhere: who has the token.

On loopback the Host header must name this machine, so that no foreign page reaches the desk by
a name that resolves here. A link with `?token=` sets a cookie once and is then redirected away.
"""

import hmac
import ipaddress
import os
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

TOKEN_VARIABLE = "REELSIEVE_REVIEW_TOKEN"
_COOKIE = "reelsieve_review"
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def token_for(host: str) -> str | None:
    """From the environment, else drawn where one is needed: for every address but loopback."""
    given = os.environ.get(TOKEN_VARIABLE)
    if given:
        return given
    return None if is_loopback(host) else secrets.token_urlsafe(24)


class Gate:
    """Wraps the application and lets through who may enter."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        """What to answer instead; None where the request may pass."""
        headers = Headers(scope=scope)
        if self._token is None:
            host = _without_port(headers.get("host", ""))
            if host in _LOOPBACK_NAMES:
                return None
            return PlainTextResponse(f"this desk answers on loopback only, not as {host}", 403)
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [])
        if given and self._is_token(given[0]):
            answer = RedirectResponse(scope["path"], 303)
            answer.set_cookie(_COOKIE, self._token, httponly=True, samesite="lax")
            return answer
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if self._is_token(bearer) or self._is_token(_cookie(headers)):
            return None
        return PlainTextResponse("a token is needed: open the link that the desk printed", 401)

    def _is_token(self, text: str) -> bool:
        return self._token is not None and hmac.compare_digest(text.encode(), self._token.encode())


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
