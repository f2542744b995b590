from __future__ import annotations

import asyncio
import os
import signal
import socket

import aiohttp
import pytest

from moestro.engine import EngineState
from moestro.errors import EngineStartFailed, GatewayError, PortTaken
from moestro.gateway.server import base_url, bind, serve, serving
from moestro.gateway.service import Service
from tests.gateway.stub_engine import StubEngine, maker_of, stub_request

SLOW = {
    "messages": [{"role": "user", "content": "Hi"}],
    "stream": True,
    "stub": {"tokens": 20, "pause": 0.05},
}


def test_a_taken_port_is_told_before_anything_starts() -> None:
    with bind(port=0) as first:
        port = first.getsockname()[1]
        with pytest.raises(PortTaken, match=str(port)) as caught:
            bind(port=port)
    assert caught.value.hint is not None
    assert "--port" in caught.value.hint


def test_a_port_can_be_bound_again_at_once() -> None:
    with bind(port=0) as first:
        port = first.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = _accept(first)
            accepted.close()
    bind(port=port).close()


def _accept(listener: socket.socket) -> tuple[socket.socket, object]:
    listener.setblocking(True)
    return listener.accept()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "203.0.113.1", "a..b", "x" * 64, "a\0b"])
def test_an_address_of_another_machine(host: str) -> None:
    with pytest.raises(GatewayError) as caught:
        bind(host, 0)
    assert caught.value.code == "bad-address"
    assert caught.value.hint is not None


def test_the_url_is_one_that_can_be_opened_here() -> None:
    with bind("0.0.0.0", 0) as listener:
        assert base_url(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_leaving_stops_engine_and_socket() -> None:
    engine = StubEngine()
    async with serving(Service(maker_of(engine), stub_request()), bind(port=0)) as url:
        assert engine.state is EngineState.READY
    assert engine.state is EngineState.STOPPED
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(url)


async def test_an_engine_that_does_not_start_frees_the_port() -> None:
    listener = bind(port=0)
    port = listener.getsockname()[1]
    with pytest.raises(EngineStartFailed, match="no memory"):
        async with serving(
            Service(maker_of(StubEngine(fails="no memory")), stub_request()), listener
        ):
            pass
    bind(port=port).close()


async def test_leaving_breaks_streams_with_a_last_word() -> None:
    async with (
        aiohttp.ClientSession() as http,
        serving(Service(maker_of(StubEngine()), stub_request()), bind(port=0)) as url,
    ):
        response = await http.post(f"{url}/v1/chat/completions", json=SLOW)
        await response.content.readuntil(b"\n\n")
        reading = asyncio.create_task(response.read())
    body = await reading
    assert b"shutting_down" in body.split(b"\n\n")[-2]
    assert b"[DONE]" not in body


class Served:
    """`serve` in a task, with its URL once it is ready."""

    def __init__(self, engine: StubEngine, drain_seconds: float = 30.0) -> None:
        self.engine = engine
        self.url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.listener = bind(port=0)
        self.task = asyncio.create_task(
            serve(
                Service(maker_of(engine), stub_request()),
                self.listener,
                on_ready=self.url.set_result,
                drain_seconds=drain_seconds,
            )
        )


async def finished(served: Served) -> None:
    async with asyncio.timeout(10):
        await served.task
    assert served.engine.state is EngineState.STOPPED


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_idle_service_stops_at_a_signal(number: signal.Signals) -> None:
    served = Served(StubEngine())
    await served.url
    os.kill(os.getpid(), number)
    await finished(served)


async def test_a_signal_ends_the_loading() -> None:
    served = Served(StubEngine(start_seconds=60))
    await asyncio.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)
    async with asyncio.timeout(10):
        await served.task
    assert not served.url.done()
    assert served.engine.state is EngineState.STOPPED


class Deaf(StubEngine):
    """Hears of no stop before it is ready, which it never becomes."""

    async def start(self, timeout_seconds: float | None = None) -> None:
        self.started = True
        try:
            await asyncio.Event().wait()
        finally:
            self.started = False

    async def stop(self, grace_seconds: float = 5.0) -> None:
        return


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_a_start_that_does_not_listen(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moestro.gateway.server.START_END_SECONDS", 0.05)
    engine = Deaf()
    served = Served(engine)
    await asyncio.sleep(0.05)
    assert engine.started
    os.kill(os.getpid(), number)
    async with asyncio.timeout(10):
        await served.task
    assert not engine.started
    assert not served.url.done()


async def test_a_start_that_fails_is_raised() -> None:
    served = Served(StubEngine(fails="no memory"))
    with pytest.raises(EngineStartFailed, match="no memory"):
        await served.task


async def _open_stream(http: aiohttp.ClientSession, url: str) -> aiohttp.ClientResponse:
    response = await http.post(f"{url}/v1/chat/completions", json=SLOW)
    await response.content.readuntil(b"\n\n")
    return response


async def test_sigterm_lets_streams_finish_and_takes_no_new_ones() -> None:
    served = Served(StubEngine())
    async with aiohttp.ClientSession() as http:
        response = await _open_stream(http, await served.url)
        os.kill(os.getpid(), signal.SIGTERM)
        body = await response.read()
        assert body.endswith(b"data: [DONE]\n\n")
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(f"{await served.url}/health")
    await finished(served)


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]])
async def test_sigint_or_a_second_signal_does_not_wait(signals: list[signal.Signals]) -> None:
    served = Served(StubEngine())
    async with aiohttp.ClientSession() as http:
        response = await _open_stream(http, await served.url)
        for number in signals:
            os.kill(os.getpid(), number)
            await asyncio.sleep(0.02)
        body = await response.read()
    assert b"shutting_down" in body
    await finished(served)


async def test_draining_is_bounded() -> None:
    served = Served(StubEngine(), drain_seconds=0.1)
    async with aiohttp.ClientSession() as http:
        response = await _open_stream(http, await served.url)
        os.kill(os.getpid(), signal.SIGTERM)
        assert b"shutting_down" in await response.read()
    await finished(served)


async def test_draining_is_not_cut_short_by_the_web_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("moestro.gateway.server.CLOSE_SECONDS", 0)
    served = Served(StubEngine())
    async with aiohttp.ClientSession() as http:
        response = await _open_stream(http, await served.url)
        os.kill(os.getpid(), signal.SIGTERM)
        assert (await response.read()).endswith(b"data: [DONE]\n\n")
    await finished(served)


async def test_sigterm_tells_those_who_wait_to_come_back() -> None:
    """With the engine are three; the fourth waits for its turn."""
    served = Served(StubEngine())
    url = await served.url
    async with aiohttp.ClientSession() as http:
        streams = [await _open_stream(http, url) for _ in range(3)]
        waiting = asyncio.create_task(http.post(f"{url}/v1/chat/completions", json=SLOW))
        await asyncio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)
        async with await waiting as refused:
            assert refused.status == 503
            assert refused.headers["retry-after"]
            assert (await refused.json())["error"]["code"] == "shutting_down"
        for stream in streams:
            assert (await stream.read()).endswith(b"data: [DONE]\n\n")
    await finished(served)
