"""A headless Chromium of the machine, driven over the DevTools protocol."""

import asyncio
import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_WAIT_S = 60.0
_POLL_S = 0.05


def find_browser() -> str | None:
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Tab:
    """One page in a profile of its own: another tab shares neither cookies nor storage."""

    def __init__(self, wire: "_Wire", session: str) -> None:
        self._wire = wire
        self._session = session
        self.errors = wire.errors.setdefault(session, [])

    async def call(self, method: str, **parameters: Any) -> Any:
        return await self._wire.call(method, self._session, **parameters)

    async def js(self, expression: str) -> Any:
        """The value of an expression, awaited where it is a promise."""
        found = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            raise AssertionError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Wait until the expression is true. Its value."""
        end = time.monotonic() + _WAIT_S
        while not (value := await self.js(expression)):
            if time.monotonic() > end:
                said = await self.js("document.body.innerText")
                raise AssertionError(f"never true: {expression}\n{self.errors}\n{said}")
            await asyncio.sleep(_POLL_S)
        return value

    async def key(self, key: str) -> None:
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        code = {"Enter": 13, "Escape": 27, "ArrowRight": 39}.get(key, 0)
        pressed = {"key": key, "text": text, "windowsVirtualKeyCode": code}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **pressed)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def type(self, text: str) -> None:
        await self.call("Input.insertText", text=text)

    async def offline(self, is_offline: bool) -> None:
        await self.call(
            "Network.emulateNetworkConditions",
            offline=is_offline,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def screenshot(self, path: Path) -> None:
        shot = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))


class Browser:
    def __init__(self, wire: "_Wire") -> None:
        self._wire = wire

    async def tab(self, url: str) -> Tab:
        context = (await self._wire.call("Target.createBrowserContext"))["browserContextId"]
        target = await self._wire.call(
            "Target.createTarget", url="about:blank", browserContextId=context
        )
        attached = await self._wire.call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        tab = Tab(self._wire, attached["sessionId"])
        for domain in ("Page", "Runtime", "Network", "Log"):
            await tab.call(f"{domain}.enable")
        await tab.open(url)
        return tab


@asynccontextmanager
async def chromium(profile: Path) -> AsyncIterator[Browser]:
    """Started for the block and ended with it."""
    program = find_browser()
    assert program is not None
    arguments = [
        program,
        "--headless=new",
        "--remote-debugging-port=0",
        f"--user-data-dir={profile}",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--window-size=1440,900",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
    ]
    with subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            port, path = await _debugger(profile / "DevToolsActivePort")
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0) as socket,
            ):
                wire = _Wire(socket)
                listening = asyncio.create_task(wire.listen())
                yield Browser(wire)
                listening.cancel()
                with suppress(asyncio.CancelledError):
                    await listening
        finally:
            process.terminate()
            process.wait(30)


class _Wire:
    """Requests and their answers over one socket; what pages complain about is kept."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._last_id = 0
        self._open: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.errors: dict[str, list[str]] = {}

    async def call(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._open[self._last_id] = answer
        await self._socket.send_json(message)
        found = await asyncio.wait_for(answer, _WAIT_S)
        if "error" in found:
            raise AssertionError(f"{method}: {found['error']}")
        return found["result"]

    async def listen(self) -> None:
        async for message in self._socket:
            found = json.loads(message.data)
            if "id" in found:
                self._open.pop(found["id"]).set_result(found)
            elif found["method"] == "Runtime.exceptionThrown":
                details = found["params"]["exceptionDetails"]
                text = details.get("exception", {}).get("description", details["text"])
                self.errors.setdefault(found["sessionId"], []).append(text)


async def _debugger(file: Path) -> tuple[str, str]:
    """(port, path) that Chromium writes down when it is ready."""
    end = time.monotonic() + _WAIT_S
    while time.monotonic() < end:
        if file.exists() and len(lines := file.read_text().split()) == 2:
            return lines[0], lines[1]
        await asyncio.sleep(_POLL_S)
    raise AssertionError("Chromium did not start")
