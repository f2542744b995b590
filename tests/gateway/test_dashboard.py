"""The page at `/`, in headless Chromium."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from moestro.gateway.access import Access
from moestro.gateway.app import Front
from moestro.gateway.board import About, Board
from moestro.gateway.growth import GrowthWatch, Memory
from moestro.gateway.key_file import create_key
from moestro.gateway.key_ring import KeyRing
from moestro.gateway.keys import KeyScope
from moestro.gateway.server import bind, serving
from moestro.gateway.service import Service
from moestro.units import GIB
from tests.chromium import PROGRAM, Page, page
from tests.gateway.conftest import Gateway
from tests.gateway.stub_engine import StubMaker, stub_request

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium")

HOSTILE = "<img src=x onerror=alert(1)>"
MESSAGES = {"messages": [{"role": "user", "content": "Hi"}]}
CHAT = "/v1/chat/completions"


@pytest_asyncio.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Page]:
    async with page(tmp_path / "profile") as one:
        await one.look(width=1280)
        yield one


async def text(browser: Page, element: str) -> str:
    return str(await browser.value(f"document.getElementById('{element}').innerText"))


@pytest.mark.parametrize("dark", [False, True])
async def test_it_fits_every_screen_and_asks_nobody_else(
    gateway: Gateway, browser: Page, dark: bool
) -> None:
    for width in (1280, 768, 360):
        await browser.look(width=width, dark=dark)
        await browser.open(gateway.url)
        await browser.until("document.getElementById('state')?.textContent === 'ready'")
        for tab in ("tab-routing", "tab-settings", "tab-overview"):
            await browser.value(f"document.getElementById('{tab}').click()")
            wide = await browser.value("document.documentElement.scrollWidth")
            assert wide <= width, (tab, width)
    colours = await browser.value("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, colours.removeprefix("rgb(").removesuffix(")").split(",")))
    assert light < 200 if dark else light > 600
    assert browser.troubles == []
    assert all(url.startswith(gateway.url) for url in browser.requests if url != "about:blank")


async def test_what_happens_is_seen_without_a_reload(gateway: Gateway, browser: Page) -> None:
    await browser.open(gateway.url)
    await browser.until("document.getElementById('state')?.textContent === 'ready'")
    for _ in range(3):
        async with gateway.http.post(CHAT, json={**MESSAGES, "stub": {"tokens": 5}}) as answer:
            assert answer.status == 200
    await browser.until("/to their end\\s+3/.test(document.getElementById('main').innerText)")
    await gateway.engine.crash()
    await browser.until("document.getElementById('events').innerText.includes('SIGSEGV')")
    await browser.until("/Restarts\\s+1/.test(document.getElementById('main').innerText)")
    assert browser.troubles == []


async def test_names_are_text_and_what_is_known_is_shown(browser: Page) -> None:
    memory = [{"device": "CPU", "weights_bytes": 5 * GIB, "resident_bytes": 5 * GIB}]
    watch = GrowthWatch(lambda _: {"host": Memory(GIB, 2 * GIB)})
    service = Service(StubMaker(), stub_request(HOSTILE), growth=watch)
    board = Board(service, About(model={"anatomy": HOSTILE}, machine=HOSTILE, memory=memory))
    async with serving(service, bind(port=0), Front(board=board)) as url:
        await browser.open(url)
        await browser.until("document.getElementById('state')?.textContent === 'ready'")
        assert await browser.value("document.images.length") == 0
        assert HOSTILE in await text(browser, "main") + await browser.value(
            "document.body.innerText"
        )
        assert "5.00 GiB" in await text(browser, "main")
        assert "Nothing is known yet" in await text(browser, "growth-note")
        await browser.value("document.getElementById('tab-routing').click()")
        await browser.until("document.body.innerText.includes('moestro verify')")
        assert browser.troubles == []


async def test_a_key_is_asked_for_and_kept_for_this_tab(browser: Page, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    _, metrics = create_key(scopes=[KeyScope.METRICS], path=path)
    _, inference = create_key(path=path)
    service = Service(StubMaker(), stub_request())
    front = Front(access=Access(KeyRing(path), loopback=True))
    async with serving(service, bind(port=0), front) as url:
        await browser.open(url)
        await browser.until("document.getElementById('key-form')?.hidden === false")
        assert "stub-model" not in await browser.value("document.body.innerText")

        async def give(secret: str) -> None:
            await browser.value(
                f"document.getElementById('key').value = '{secret}';"
                "document.getElementById('key-form').requestSubmit()"
            )

        await give(inference)
        await browser.until("document.getElementById('key-why').innerText.includes('scope')")
        await give(metrics)
        await browser.until("document.getElementById('state').textContent === 'ready'")
        assert "stub-model" in await browser.value("document.body.innerText")
        await browser.open(url)
        await browser.until("document.getElementById('state')?.textContent === 'ready'")
