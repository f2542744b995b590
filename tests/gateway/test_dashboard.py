"""The page at `/`, in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from moestro.gateway.access import Access
from moestro.gateway.app import Front
from moestro.gateway.board import About, Board
from moestro.gateway.growth import GrowthWatch
from moestro.gateway.key_file import create_key
from moestro.gateway.key_ring import KeyRing
from moestro.gateway.keys import KeyScope
from moestro.gateway.server import bind, serving
from moestro.gateway.service import Service
from moestro.verify.routing_record import routing_record
from tests.cli.verifications import HOSTILE, verification
from tests.gateway.chromium import Page, chromium, program, tab
from tests.gateway.stub_engine import StubEngine, StubMaker, stub_request

CHAT = "/v1/chat/completions"
MESSAGES: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
OPEN = "!document.getElementById('main').hidden"
FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
GIB = 1 << 30

in_browser = pytest.mark.skipif(program() is None, reason="there is no Chromium here")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with chromium(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@asynccontextmanager
async def gateway(
    name: str = "stub-model", about: About | None = None, access: Access | None = None
) -> AsyncIterator[tuple[str, Service, Board]]:
    watch = GrowthWatch(lambda _: {})
    service = Service(StubMaker(), stub_request(name), growth=watch)
    board = Board(service, about)
    async with serving(service, bind(port=0), Front(access=access, board=board)) as url:
        yield url, service, board


def planned(**more: Any) -> About:
    device = {
        "device": "CPU",
        "capacity_bytes": 16 * GIB,
        "total_bytes": 9 * GIB,
        "resident": {"weights": 4 * GIB, "cache": GIB, "compute": GIB // 2, "other": GIB // 4},
        "later": ["prompt cache"],
    }
    return About(memory=[device], machine="a machine", **more)


async def chat(url: str, **body: Any) -> None:
    async with (
        aiohttp.ClientSession(url) as http,
        http.post(CHAT, json={**MESSAGES, **body}) as response,
    ):
        await response.read()


def check(page: Page, url: str) -> None:
    assert page.troubles == []
    assert [at for at in page.requested if not at.startswith((url, "data:", "about:"))] == []


@in_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1300])
async def test_it_fits_and_asks_nobody_else(port: int, width: int, dark: bool) -> None:
    profile = routing_record(verification(layers=24, experts=64, chunks=3))
    about = planned(routing=lambda: profile, model={"anatomy": "a" * 300})
    name = "a-model-with-a-name-that-is-much-longer-than-a-telephone-is-wide-Q4_K_M"
    async with gateway(name, about) as (url, _, board), tab(
        port, width=width, dark=dark
    ) as page:  # fmt: skip
        board.host_bytes = {"anon": GIB, "file": 4 * GIB}
        await chat(url, stream=True)
        await page.open(url)
        await page.until(OPEN)
        for view in ("overview", "routing", "settings"):
            await page.click(f"#tab-{view}")
            await page.until(f"!document.getElementById('{view}').hidden")
            if view == "routing":
                await page.until("document.querySelector('#routing canvas') !== null")
            await page.get("document.querySelectorAll('details').forEach(d => d.open = true)")
            assert await page.get(FITS), view
        back = await page.get("getComputedStyle(document.body).backgroundColor")
        bright = sum(int(part) for part in re.findall(r"\d+", back)[:3]) / 3
        assert (bright < 60) is dark
        check(page, url)


@in_browser
async def test_it_lives(port: int) -> None:
    async with gateway() as (url, _, _), tab(port) as page:
        await page.open(url)
        await page.until(OPEN)
        assert await page.text("#model") == "stub-model"
        assert await page.text("#state") == "ready"
        assert await page.text("#base-url") == f"{url}/v1"
        assert "No request has ended" in await page.text("#latency-note")
        for stream in (True, True, False):
            await chat(url, stream=stream)
        await page.until("document.querySelector('#latency-note').innerText.startsWith('Of 3 req')")
        assert "Answered to their end\t3" in await page.text("#requests")
        assert "of 2" in await page.text("#now-running")
        check(page, url)


@in_browser
async def test_a_crash_is_seen_with_its_reason_and_what_follows(port: int) -> None:
    async with gateway() as (url, service, _), tab(port) as page:
        await page.open(url)
        await page.until(OPEN)
        assert await page.text("#now-restarts") == "0"
        assert isinstance(service.engine, StubEngine)
        await service.engine.crash()
        await page.until("document.querySelector('#events').innerText.includes('SIGSEGV')")
        await page.until("document.querySelector('#now-restarts').innerText === '1'")
        assert await page.text("#now-restarts-note") == "1 crashed"
        assert await page.text("#state") == "ready"
        assert (await page.text("#events li:first-child")).split()[1:4] == ["engine", "2", "ready"]
        check(page, url)


@in_browser
async def test_an_end_is_told_and_nothing_is_lost(port: int) -> None:
    async with tab(port) as page:
        async with gateway() as (url, _, _):
            await page.open(url)
            await page.until(OPEN)
        await page.until("document.getElementById('state').innerText === 'no connection'")
        assert "does not answer" in await page.text("#trouble")
        assert await page.text("#model") == "stub-model"


@in_browser
async def test_names_are_text_and_not_markup(port: int) -> None:
    hostile = HOSTILE.replace("\x1b", "")
    found = verification(name=hostile, domains=(hostile, "b"))
    about = planned(
        model={"anatomy": hostile},
        routing=lambda: routing_record(found),
        reasons=[{"setting": "context", "because": hostile, "source": hostile}],
    )
    async with gateway(hostile, about) as (url, service, _), tab(port) as page:
        await page.open(url)
        await page.until(OPEN)
        await page.get("window.alert = text => { window.alerted = text; }")
        service._note(1, None, hostile)
        await page.click("#tab-routing")
        await page.until("document.querySelector('#routing canvas') !== null")
        await page.until("document.querySelector('#events').innerText.includes('alert(')")
        assert await page.get("window.alerted") is None
        assert await page.get("document.scripts.length") == 1
        assert await page.text("#model") == hostile
        await page.click("#tab-overview")
        assert "Nothing is known yet" in await page.text("#growth-note")
        # Inside single quotes of a shell command.
        assert "'\\''x'\\''" in await page.text("#curl")
        check(page, url)


@in_browser
async def test_memory_is_drawn_and_written(port: int) -> None:
    async with gateway(about=planned()) as (url, _, _), tab(port) as page:
        await page.open(url)
        await page.until(OPEN)
        said = await page.get(
            "[...document.querySelectorAll('#memory .bar')].map(b => b.getAttribute('aria-label'))"
        )
        assert "weights 4.00 GiB" in said[0]
        assert "planned 5.75 GiB" in await page.text("#memory h3")
        assert "3.25 GiB may come on top: prompt cache" in await page.text("#memory")
        await page.click("#memory-table")
        widths = await page.get(
            "[...document.querySelectorAll('#memory .bar:first-of-type i')].map(i => i.offsetWidth)"
        )
        assert widths[0] > widths[1] > 0
        check(page, url)


@in_browser
async def test_routing_shows_what_verify_kept_or_how_to_make_it(port: int) -> None:
    async with gateway() as (url, _, board), tab(port) as page:
        await page.open(url)
        await page.until(OPEN)
        await page.click("#tab-routing")
        await page.until("document.querySelector('#routing pre') !== null")
        assert "moestro verify MODEL --reference REF" in await page.text("#routing")
        board.about = About(routing=lambda: routing_record(verification(layers=0)))
        await page.open(url)
        await page.until(OPEN)
        await page.click("#tab-routing")
        await page.until("document.querySelector('#routing .badge') !== null")
        assert "no experts" in await page.text("#routing")
        found = verification(layers=3, experts=8)
        assert found.routing is not None
        board.about = About(routing=lambda: routing_record(found))
        await page.open(url)
        await page.until(OPEN)
        await page.click("#tab-routing")
        await page.until("document.querySelector('#routing canvas') !== null")
        assert await page.get("document.querySelector('#routing canvas').width") == 8
        assert await page.get("document.querySelector('#routing canvas').height") == 3
        rows = await page.get("document.querySelectorAll('#routing details tbody tr').length")
        assert rows == 3
        before = await page.get("document.querySelector('#routing canvas').toDataURL()")
        await page.click("#routing label:last-of-type input")
        assert await page.get("document.querySelector('#routing canvas').toDataURL()") != before
        check(page, url)


@in_browser
async def test_tabs_go_by_the_keyboard(port: int) -> None:
    async with gateway() as (url, _, _), tab(port) as page:
        await page.open(url)
        await page.until(OPEN)
        await page.get("document.getElementById('tab-overview').focus()")
        for key in ("rawKeyDown", "keyUp"):
            await page.call("Input.dispatchKeyEvent", type=key, key="ArrowLeft")
        assert await page.get("document.activeElement.id") == "tab-settings"
        assert await page.get("document.getElementById('overview').hidden") is True
        unnamed = await page.get(
            "[...document.querySelectorAll('button, input, [role=img], canvas')]"
            ".filter(e => !e.innerText && !e.labels?.length && !e.getAttribute('aria-label'))"
            ".length"
        )
        assert unnamed == 0


@in_browser
async def test_a_key_is_asked_for_and_sent(port: int, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    _, inference = create_key(path=path)
    _, secret = create_key(scopes=[KeyScope.METRICS], path=path)
    asked = "!document.getElementById('key-form').hidden"
    access = Access(KeyRing(path), loopback=True)
    async with gateway(access=access) as (url, _, _), tab(port) as page:
        await page.open(url)
        words = ("needed", "not valid", "lacks the scope")
        given = (("wrong\u00fc", asked), (inference, asked), (secret, OPEN))
        for (key, then), word in zip(given, words, strict=True):
            await page.until(asked)
            await page.until(f"document.getElementById('key-why').innerText.includes('{word}')")
            assert "stub-model" not in await page.text("body")
            await page.get(f"document.getElementById('key').value = {json.dumps(key)}")
            await page.click("#key-form button")
            await page.until(then)
        assert await page.get("sessionStorage.getItem('moestro-key')") == secret
        assert await page.get("localStorage.length") == 0
        assert "Authorization: Bearer $MOESTRO_KEY" in await page.text("#curl")
        await page.click("#tab-routing")
        await page.until("document.querySelector('#routing pre') !== null")
        assert secret not in await page.get("document.documentElement.outerHTML")
        assert not [at for at in page.requested if secret in at]


def test_the_script_sets_text_and_never_markup() -> None:
    folder = resources.files("moestro.gateway").joinpath("dashboard")
    script = folder.joinpath("dashboard.js").read_text("utf-8")
    for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function("):
        assert way not in script
    page = folder.joinpath("index.html").read_text("utf-8")
    assert set(re.findall(r"at\(\"([a-z-]+)\"\)", script)) <= set(re.findall(r'id="([^"]+)"', page))
