"""What is written of a request, and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from moestro.gateway.access import Access
from moestro.gateway.app import Front
from moestro.gateway.key_file import create_key
from moestro.gateway.key_ring import KeyRing
from moestro.gateway.keys import KeyScope
from moestro.gateway.request_log import MOST_PROMPT_BYTES, RequestLog
from moestro.gateway.server import bind, serving
from moestro.gateway.service import Service
from tests.gateway.conftest import Gateway, until
from tests.gateway.stub_engine import StubMaker, stub_request

CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "a secret\u202e"}]}


class Lines:
    """What was written: for people, and for programs."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.told: list[dict[str, Any]] = []

    def write(self, text: str, told: dict[str, Any]) -> None:
        self.texts.append(text)
        self.told.append(told)

    async def next(self) -> dict[str, Any]:
        await until(lambda: bool(self.told))
        self.texts.pop(0)
        return self.told.pop(0)


@pytest.fixture
def lines() -> Lines:
    return Lines()


@asynccontextmanager
async def logged(
    lines: Lines, *, prompts: bool = False, access: Access | None = None
) -> AsyncIterator[Gateway]:
    maker = StubMaker()
    service = Service(maker, stub_request(parallel=8))
    front = Front(access=access, log=RequestLog(lines.write, prompts=prompts))
    async with (
        serving(service, bind(port=0), front) as url,
        aiohttp.ClientSession(url) as http,
    ):
        yield Gateway(url, service, http, maker)


async def ask(gateway: Gateway, **body: Any) -> str:
    """Its request's id."""
    async with gateway.http.post(CHAT, json={**HELLO, **body}) as response:
        await response.read()
        return response.headers["x-request-id"]


async def test_figures_and_no_words(lines: Lines) -> None:
    async with logged(lines) as gateway:
        name = await ask(gateway)
        (text,) = lines.texts
        told = await lines.next()
    assert told["id"] == name
    assert told["route"] == CHAT
    assert (told["status"], told["end"], told["code"]) == (200, "stop", None)
    assert (told["prompt_tokens"], told["answer_tokens"], told["engines_lost"]) == (2, 3, 0)
    assert 0 <= told["wait_seconds"] <= told["seconds"] < 10
    assert "secret" not in text + str(told)
    assert text.startswith(f"{name} {CHAT} 200 stop, 2 tokens read, 3 written, ")


async def test_what_it_said_if_asked(lines: Lines) -> None:
    async with logged(lines, prompts=True) as gateway:
        await ask(gateway)
        told = await lines.next()
        assert "a secret" in told["body"]
        assert told["body_cut"] is False
        await ask(gateway, padding="x" * MOST_PROMPT_BYTES)
        (text,) = lines.texts
        told = await lines.next()
    assert told["body"].startswith('{"messages"')
    assert len(told["body"]) <= MOST_PROMPT_BYTES
    assert told["body_cut"] is True
    assert "\n" not in text


async def test_a_stream_that_lost_its_engine(lines: Lines) -> None:
    async with logged(lines) as gateway:
        await ask(gateway, stream=True, stub={"tokens": 4, "die_after": 2})
        told = await lines.next()
    assert (told["status"], told["end"], told["engines_lost"]) == (200, "stop", 1)
    assert told["first_token_seconds"] is not None


async def test_a_client_that_left(lines: Lines) -> None:
    async with logged(lines) as gateway:
        asking = asyncio.create_task(ask(gateway, stub={"hang": True}))
        await until(lambda: bool(gateway.engine.requests))
        asking.cancel()
        told = await lines.next()
    assert (told["status"], told["end"]) == (None, "abort")


async def test_refused_ones_are_told_without_their_words(lines: Lines, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key, secret = create_key("one", [KeyScope.INFERENCE], path=path)
    access = Access(KeyRing(path), loopback=True)
    async with logged(lines, prompts=True, access=access) as gateway:
        await ask(gateway)
        told = await lines.next()
        assert (told["status"], told["key"], told["route"]) == (401, None, CHAT)
        assert "body" not in told
        bearer = {"authorization": f"Bearer {secret}"}
        async with gateway.http.post("/v1/secret\n", data=b"secret", headers=bearer) as response:
            assert response.status == 404
        (text,) = lines.texts
        told = await lines.next()
        assert (told["status"], told["key"], told["route"]) == (404, key.id, "other")
        assert "secret" not in text + str(told)
        async with gateway.http.get("/health") as response:
            assert response.status == 200
        assert not lines.told
