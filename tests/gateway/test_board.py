"""`/api/status`, `/api/events`, `/api/routing`: what the page shows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from moestro.gateway import board as boards
from moestro.gateway import server as servers
from moestro.gateway.app import Front
from moestro.gateway.board import MOST_UNSENT, About, Board, used_share
from moestro.gateway.growth import GrowthWatch
from moestro.gateway.server import bind, serving
from moestro.gateway.service import Service
from tests.gateway.conftest import Gateway, until
from tests.gateway.stub_engine import StubMaker, stub_request

CHAT = "/v1/chat/completions"
MESSAGES: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}


async def status_of(http: aiohttp.ClientSession) -> dict[str, Any]:
    async with http.get("/api/status") as response:
        assert response.status == 200
        assert response.headers["cache-control"] == "no-store"
        return dict(await response.json())


async def events_of(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    """(name, data) of each event."""
    name = ""
    async for line in response.content:
        if line.startswith(b"event: "):
            name = line[7:].strip().decode()
        elif line.startswith(b"data: "):
            yield name, json.loads(line[6:])


async def test_a_status_of_a_gateway_that_was_told_nothing(gateway: Gateway) -> None:
    found = await status_of(gateway.http)
    assert found["state"] == "ready"
    assert found["model"]["id"] == "stub-model"
    assert found["queue"]["streams"] == 2
    assert found["settings"]["parallel"] == 2
    assert found["memory"] == {"planned": [], "host": {}, "host_bytes": None, "devices": {}}
    assert found["latency"]["requests"] == 0
    assert found["latency"]["time_to_first_token"]["p50"] is None
    assert found["growth"] is None
    assert found["given_up"] is False
    assert [one["state"] for one in found["events"]] == ["ready"]


async def test_a_status_after_requests(gateway: Gateway) -> None:
    for stream in (True, False):
        body = {**MESSAGES, "stream": stream, "stub": {"tokens": 3}}
        async with gateway.http.post(CHAT, json=body) as response:
            await response.read()
    await asyncio.sleep(boards.FRESH_SECONDS)
    found = await status_of(gateway.http)
    assert found["requests"]["ended"] == {"stop": 2}
    assert found["requests"]["prompt_tokens"] == 2
    latency = found["latency"]
    assert latency["requests"] == latency["whole_request"]["requests"] == 2
    assert latency["time_to_first_token"]["requests"] == 1
    assert 0 < latency["whole_request"]["p50"] <= latency["whole_request"]["p99"]


async def test_a_crash_is_told_with_its_reason(gateway: Gateway) -> None:
    await gateway.engine.crash()
    await until(lambda: gateway.service.restarts == 1 and gateway.service.refusal() is None)
    found = await status_of(gateway.http)
    assert found["restarts"] == {"count": 1, "reasons": {"crashed": 1}}
    assert any("SIGSEGV" in event["text"] for event in found["events"])
    assert found["engine"]["number"] == 2


async def test_what_its_starter_says_and_a_profile_that_cannot_be_read() -> None:
    watch = GrowthWatch(lambda _: {})
    service = Service(StubMaker(), stub_request(), growth=watch)
    about = About(
        model={"architecture": "qwen35moe", "id": "not this one"},
        machine="a machine",
        settings={"context": 1},
        memory=[{"device": "CPU", "weights_bytes": 5}],
        routing=lambda: {"verdict": "pass"},
    )
    board = Board(service, about)
    async with (
        serving(service, bind(port=0), Front(board=board)) as url,
        aiohttp.ClientSession(url) as http,
    ):
        found = await status_of(http)
        assert found["model"]["id"] == "stub-model"
        assert found["model"]["architecture"] == "qwen35moe"
        assert found["memory"]["planned"] == [{"device": "CPU", "weights_bytes": 5}]
        assert found["given_up"] is True
        assert found["growth"]["sentence"] == "Nothing is known yet: no request has come."
        assert found["growth"]["places"] == []
        async with http.get("/api/routing") as response:
            assert await response.json() == {"model": "stub-model", "profile": {"verdict": "pass"}}

        def broken() -> Any:
            raise OSError

        board.about = About(routing=broken)
        async with http.get("/api/routing") as response:
            assert (await response.json())["profile"] is None


async def test_events_come_as_they_happen(gateway: Gateway) -> None:
    async with gateway.http.get("/api/events") as response:
        assert response.content_type == "text/event-stream"
        events = events_of(response)
        name, data = await anext(events)
        assert (name, data["state"]) == ("status", "ready")
        await gateway.engine.kill()
        told = []
        async with asyncio.timeout(10):
            async for name, data in events:
                if name == "note":
                    told.append((data["engine"], data["state"]))
                if told[-1:] == [(2, "ready")]:
                    break
        assert told == [(1, "failed"), (2, "ready")]
    await until(lambda: not gateway.service.listeners)


async def test_the_number_of_listeners_is_bounded(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards, "MOST_LISTENERS", 2)
    first = await gateway.http.get("/api/events")
    second = await gateway.http.get("/api/events")
    async with gateway.http.get("/api/events") as third:
        assert third.status == 503
        assert (await third.json())["error"]["code"] == "too_many_listeners"
    second.close()
    async with asyncio.timeout(10):
        while True:
            async with gateway.http.get("/api/events") as again:
                if again.status == 200:
                    break
            await asyncio.sleep(0.01)
    first.close()


async def test_a_listener_that_does_not_read_loses_the_oldest() -> None:
    service = Service(StubMaker(), stub_request())
    board = Board(service)
    async with board.listening() as queue:
        for number in range(MOST_UNSENT + 5):
            board._send(b"%d" % number)
        assert queue.qsize() == MOST_UNSENT
        assert queue.get_nowait() == b"5"
        board.close()
        while (event := queue.get_nowait()) is not None:
            last = event
        assert last == b"%d" % (MOST_UNSENT + 4)
    assert board._telling is None


async def test_events_end_when_the_gateway_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "CLOSE_SECONDS", 3600)  # it would wait for an answer so long
    service = Service(StubMaker(), stub_request())
    async with asyncio.timeout(60), aiohttp.ClientSession() as http:
        async with serving(service, bind(port=0)) as url:
            response = await http.get(f"{url}/api/events")
            assert (await anext(events_of(response)))[0] == "status"
        await response.read()


@pytest.mark.parametrize(
    ("slots", "share"),
    [
        ([], None),
        ({}, None),
        ([1], None),
        ([{"n_ctx": 100}], 0.0),
        ([{"n_ctx": 100, "is_processing": True, "n_prompt_tokens": 50}, {"n_ctx": 100}], 0.25),
        ([{"n_ctx": 100, "is_processing": False, "n_prompt_tokens": 50}], 0.0),
        ([{"n_ctx": 100, "is_processing": True, "n_prompt_tokens": 500}], 1.0),
        ([{"n_ctx": "x"}], None),
    ],
)
def test_how_full_the_cache_is(slots: Any, share: float | None) -> None:
    assert used_share(slots) == share
