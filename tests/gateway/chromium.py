"""A headless Chromium that a test steers: its own protocol, over a WebSocket."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
START_SECONDS = 120.0
WAIT_SECONDS = 60.0


def program() -> str | None:
    """Where it is; None on a machine without one."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Page:
    """One tab. `troubles` are errors on its console, `requested` the addresses it asked for."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.troubles: list[str] = []
        self.requested: list[str] = []
        self._socket = socket
        self._numbers = count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            data = json.loads(message.data)
            if "id" in data:
                answer = self._answers.pop(data["id"], None)
                if answer is not None and not answer.done():
                    answer.set_result(data)
            else:
                self._heard(data["method"], data["params"])

    def _heard(self, method: str, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.troubles.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.troubles.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.troubles.append(json.dumps(params["entry"]))

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(WAIT_SECONDS):
            found = await answer
        assert "error" not in found, found["error"]
        return dict(found["result"])

    async def begin(self, *, width: int, height: int, dark: bool) -> None:
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.call(f"{domain}.enable")
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 500,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)
        await self.until("location.protocol != 'about:' && document.readyState == 'complete'")

    async def get(self, expression: str) -> Any:
        """What a JavaScript expression is; promises are waited for."""
        found = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def until(self, expression: str) -> None:
        """Waits until it is true; a generous guard against hanging."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while not await self.get(expression):  # noqa: ASYNC110 (the page tells nobody)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            text = await self.get("document.body.innerText")
            raise AssertionError(f"never: {expression}\n{text}\n{self.troubles}") from None

    async def text(self, selector: str) -> str:
        return str(await self.get(f"document.querySelector({json.dumps(selector)}).innerText"))

    async def click(self, selector: str) -> None:
        await self.get(f"document.querySelector({json.dumps(selector)}).click()")

    async def picture(self, path: Path) -> None:
        found = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(found["data"]))

    async def close(self) -> None:
        self._reader.cancel()
        await asyncio.wait((self._reader,))
        await self._socket.close()


@asynccontextmanager
async def tab(
    port: int, *, width: int = 1200, height: int = 900, dark: bool = False
) -> AsyncIterator[Page]:
    """A new tab of the Chromium that is steered at that port."""
    at = f"http://127.0.0.1:{port}/json"
    async with aiohttp.ClientSession() as http:
        async with http.put(f"{at}/new?about:blank") as answer:
            target = await answer.json()
        page = Page(await http.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0))
        try:
            await page.begin(width=width, height=height, dark=dark)
            yield page
        finally:
            await page.close()
            async with http.get(f"{at}/close/{target['id']}") as answer:
                await answer.read()


@contextmanager
def chromium(folder: Path) -> Iterator[int]:
    """One that runs for as long as the context lasts, with a profile of its own in `folder`; the
    port at which it is steered."""
    found = program()
    assert found is not None
    process = subprocess.Popen(
        [
            found,
            "--headless=new",
            "--no-sandbox",  # root has none
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--hide-scrollbars",
            "--remote-debugging-port=0",
            f"--user-data-dir={folder}",
            "about:blank",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(folder)},
        start_new_session=True,
    )
    try:
        file = folder / "DevToolsActivePort"
        until = time.monotonic() + START_SECONDS
        while not (file.exists() and "\n" in file.read_text()):
            assert process.poll() is None, "Chromium ended"
            assert time.monotonic() < until, "Chromium did not start"
            time.sleep(0.05)
        yield int(file.read_text().split()[0])
    finally:
        process.terminate()
        process.wait()
