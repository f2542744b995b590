"""Every route, answered by the real web server in front of a stub engine."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import yarl
from starlette.datastructures import URL
from starlette.requests import HTTPConnection

from moestro.engine import EngineState
from moestro.gateway.app import Front
from moestro.gateway.bounds import Bounds
from moestro.gateway.server import bind, serving
from moestro.gateway.service import Service
from tests.gateway.conftest import MAX_BODY, Gateway, until
from tests.gateway.stub_engine import KEY, StubEngine, maker_of, stub_request

CHAT = "/v1/chat/completions"
MESSAGES = {"messages": [{"role": "user", "content": "Hi"}]}


async def error_of(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """The envelope's content, after a check that it is one."""
    assert response.content_type == "application/json"
    error = (await response.json())["error"]
    assert {"message", "type", "code", "param", "source"} <= set(error)
    return dict(error)


async def test_models_are_listed_with_their_real_limits(gateway: Gateway) -> None:
    async with gateway.http.get("/v1/models") as response:
        listing = await response.json()
    (model,) = listing["data"]
    assert listing["object"] == "list"
    assert model["id"] == "stub-model"
    assert model["object"] == "model"
    # What the engine says (480), not what it was asked for (512).
    assert model["context_length"] == model["max_model_len"] == 480
    assert model["parallel"] == 2
    assert model["input_modalities"] == ["text"]


@pytest.mark.parametrize("name", ["stub-model", "stub-file", "default"])
async def test_one_model_by_any_of_its_names(gateway: Gateway, name: str) -> None:
    async with gateway.http.get(f"/v1/models/{name}") as response:
        assert response.status == 200
        assert (await response.json())["id"] == "stub-model"


@pytest.mark.parametrize("name", ["gpt-4", "owner/repo", "stub-model/x"])
async def test_an_unknown_model_is_a_404_that_lists_the_known(gateway: Gateway, name: str) -> None:
    async with gateway.http.get(f"/v1/models/{name}") as response:
        listed = await error_of(response)
    async with gateway.http.post(CHAT, json={**MESSAGES, "model": name}) as answer:
        asked = await error_of(answer)
    assert response.status == answer.status == 404
    assert asked == listed
    assert (asked["code"], asked["param"]) == ("model_not_found", "model")
    assert "stub-model" in asked["hint"]
    assert gateway.engine.requests == []


async def test_a_full_queue_is_told_before_a_body_is_read_as_json(gateway: Gateway) -> None:
    gateway.service.queue.most_waiting = 0
    async with gateway.http.post(CHAT, data=b"{") as response:
        assert (response.status, (await error_of(response))["code"]) == (503, "queue_full")


async def test_what_all_bodies_take_together_has_a_bound() -> None:
    """Of those that are read, wait and are answered; and each gives back what it took."""
    engine = StubEngine()
    service = Service(maker_of(engine), stub_request())
    bounds = Bounds(body_bytes=MAX_BODY, bodies_bytes=2 * MAX_BODY + 1000)
    hangs = {**MESSAGES, "stub": {"hang": True}, "user": "x" * (MAX_BODY - 200)}
    large = json.dumps(hangs).encode()

    async def code(body: bytes, chunked: bool = False) -> str:
        data = aiohttp.AsyncIterablePayload(_drips(body)) if chunked else io.BytesIO(body)
        async with http.post(CHAT, data=data) as response:
            return str((await error_of(response))["code"]) if response.status != 200 else "ok"

    async with (
        serving(service, bind(port=0), Front(bounds=bounds)) as url,
        aiohttp.ClientSession(url) as http,
    ):
        for _ in range(3):
            held = [asyncio.create_task(code(large)) for _ in range(2)]
            await until(lambda: engine.active == 2)
            assert await code(json.dumps(MESSAGES).encode()) == "ok"
            assert await code(large) == "bodies_too_large"
            assert await code(large, chunked=True) == "bodies_too_large"
            for task in held:
                task.cancel()  # a client that leaves
            await until(lambda: engine.active == 0)
            for broken in (b"{" + b" " * (MAX_BODY - 1), b" " * (MAX_BODY + 1)):
                codes = {await code(broken) for _ in range(3)}
                assert codes == {"invalid_json" if broken[0] == ord("{") else "body_too_large"}


async def _drips(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 1000):
        yield body[start : start + 1000]


async def test_an_unknown_route_is_an_envelope(gateway: Gateway) -> None:
    for path in ("/nope", "/v1", "/v1/chat/completions/", "/v1/models/"):
        async with gateway.http.get(path) as response:
            assert response.status == 404, path
            error = await error_of(response)
            assert error["source"] == "request"
    near = yarl.URL(f"{gateway.url}{CHAT}%0A", encoded=True)
    async with gateway.http.post(near, json=MESSAGES) as response:
        assert (response.status, (await error_of(response))["code"]) == (404, "unknown_route")
    async with gateway.http.get("/nope") as response:
        hint = (await error_of(response))["hint"]
    assert "/v1/models/{name}," in hint
    assert "dashboard" not in hint


@pytest.mark.parametrize(
    ("method", "path"), [("GET", CHAT), ("POST", "/v1/models"), ("DELETE", "/health")]
)
async def test_a_wrong_method_is_an_envelope(gateway: Gateway, method: str, path: str) -> None:
    async with gateway.http.request(method, path) as response:
        assert response.status == 405
        assert response.headers["allow"]
        assert (await error_of(response))["code"] == "method_not_allowed"


async def test_bad_bodies_never_reach_the_engine(gateway: Gateway) -> None:
    for body, code in ((b"{", "invalid_json"), (b"{}", "missing_field")):
        for path in (CHAT, "/v1/completions", "/v1/embeddings"):
            async with gateway.http.post(path, data=body) as response:
                assert response.status == 400
                assert (await error_of(response))["code"] == code
    assert gateway.engine.requests == []


async def test_a_body_may_be_as_large_as_the_limit_and_no_larger(gateway: Gateway) -> None:
    frame = len(json.dumps(MESSAGES)) - len("Hi")
    for size, status in ((MAX_BODY, 200), (MAX_BODY + 1, 413), (MAX_BODY * 4, 413)):
        text = "x" * (size - frame)
        body = json.dumps({"messages": [{"role": "user", "content": text}]})
        assert len(body) == size
        async with gateway.http.post(CHAT, data=io.BytesIO(body.encode())) as response:
            assert response.status == status
            if status == 413:
                assert (await error_of(response))["code"] == "body_too_large"
    async with gateway.http.get("/health") as response:
        assert response.status == 200


async def test_a_body_without_length_is_bounded_as_well(gateway: Gateway) -> None:
    async def endless() -> Any:
        for _ in range(4):
            yield b"x" * (MAX_BODY // 2)

    async with gateway.http.post(CHAT, data=endless()) as response:
        assert response.status == 413


async def test_compressed_bodies_are_refused(gateway: Gateway) -> None:
    headers = {"content-encoding": "gzip"}
    async with gateway.http.post(CHAT, data=b"x", headers=headers) as response:
        assert response.status == 415
        assert (await error_of(response))["code"] == "unsupported_content_encoding"


async def test_embeddings_are_refused_clearly_and_without_retry(gateway: Gateway) -> None:
    async with gateway.http.post("/v1/embeddings", json={"input": "x"}) as response:
        assert response.status == 501
        assert response.headers["x-should-retry"] == "false"
        assert (await error_of(response))["code"] == "not_supported"


async def test_the_key_goes_to_the_engine_only(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frameworks have built a request's URL from its Host header, path included. Here is one that
    does: neither the engine's key nor an error may go by that URL."""
    stolen: list[bytes] = []

    async def steal(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stolen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    async with await asyncio.start_server(steal, "127.0.0.1", 0) as thief:
        host = f"a//127.0.0.1:{thief.sockets[0].getsockname()[1]}/steal?"
        believed = property(lambda request: URL(f"http://{host}{request.scope['path']}"))
        monkeypatch.setattr(HTTPConnection, "url", believed)
        for path, body in ((CHAT, MESSAGES), ("/v1/completions", {"prompt": "Hi"})):
            async with gateway.http.post(path, json=body, headers={"host": host}) as response:
                assert response.status == 200
        for method, path in (("GET", CHAT), ("GET", "/nope")):
            async with gateway.http.request(method, path, headers={"host": host}) as response:
                message = (await error_of(response))["message"]
            assert path in message
            assert "steal" not in message
    assert stolen == []
    assert gateway.engine.requests == [MESSAGES, {"prompt": "Hi"}]


async def test_half_a_character_in_a_request_is_no_failure_of_ours(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    lone = "\ud800"
    async with gateway.http.post(CHAT, json={**MESSAGES, "model": lone}) as response:
        assert response.status == 404
        error = await error_of(response)
    assert (error["code"], "\ufffd" in error["message"]) == ("model_not_found", True)
    asked = {
        "messages": [{"role": "user", "content": lone}],
        "stub": {"status": 400, "body": json.dumps({"error": {"message": f"no {lone}"}})},
    }
    async with gateway.http.post(CHAT, json=asked) as response:
        assert response.status == 400
        assert (await error_of(response))["message"] == "no \ufffd"
    assert gateway.engine.requests == [asked]
    async with gateway.http.post(CHAT, json={**asked, "stub": {"tokens": 1}}) as response:
        assert response.status == 200
    assert caplog.text == ""


async def test_a_model_whose_name_is_not_utf_8(caplog: pytest.LogCaptureFixture) -> None:
    """Python names a file `caf<0xE9>.gguf` so."""
    engine = StubEngine()
    made = [engine]
    service = Service(lambda _: made.pop(), stub_request("caf\udce9", "/models/file\udce9.gguf"))
    async with serving(service, bind(port=0)) as url, aiohttp.ClientSession(url) as http:
        async with http.get("/v1/models") as response:
            (model,) = (await response.json())["data"]
        assert (model["id"], model["aliases"]) == ("caf\ufffd", ["file\ufffd", "default"])
        for name in (model["id"], model["aliases"][0]):
            async with http.post(CHAT, json={**MESSAGES, "model": name}) as response:
                assert response.status == 200
        made.append(StubEngine(start_seconds=60))
        await engine.kill("caf\udce9 ended.")
        await until(lambda: service.restarts == 1)
        for path, status in (("/", 200), ("/health", 503)):
            async with http.get(path) as response:
                assert response.status == status
                assert "caf\ufffd ended." in await response.text()
    assert caplog.text == ""


async def test_health_of_a_ready_engine(gateway: Gateway) -> None:
    for path in ("/health", "/health/ready"):
        async with gateway.http.get(path) as response:
            assert response.status == 200
            health = await response.json()
        assert (health["status"], health["ready"], health["live"]) == ("ready", True, True)


async def test_health_turns_red_when_the_engine_dies(gateway: Gateway) -> None:
    gateway.maker.plans = [{"start_seconds": 0.5}]
    await gateway.engine.kill()
    await until(lambda: gateway.service.restarts == 1)
    for path in ("/health", "/health/ready"):
        async with gateway.http.get(path) as response:
            assert response.status == 503
            assert "retry-after" in response.headers
            health = await response.json()
        assert (health["status"], health["ready"]) == ("starting", False)
        assert "SIGKILL" in health["reason"]
        assert health["error"]["code"] == "engine_starting"
    async with gateway.http.get("/health/live") as response:
        assert response.status == 200
    async with gateway.http.post(CHAT, json=MESSAGES) as response:
        assert response.status == 200, "it waited for the next one"
    async with gateway.http.get("/health") as response:
        assert response.status == 200


async def test_the_endpoint_answers_while_the_engine_loads() -> None:
    engine = StubEngine(start_seconds=60)
    service = Service(maker_of(engine), stub_request())
    listener = bind(port=0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    async def hold() -> None:
        async with serving(service, listener):
            raise AssertionError("it can't be ready")

    running = asyncio.create_task(hold())
    async with aiohttp.ClientSession(url) as http:
        async with http.get("/health") as response:
            assert response.status == 503
            assert (await response.json())["status"] == "starting"
        async with http.get("/health/live") as response:
            assert response.status == 200
        async with http.get("/v1/models") as response:
            assert (await response.json())["data"][0]["context_length"] is None
        service.queue.wait_seconds = 0.1
        async with http.post(CHAT, json=MESSAGES) as response:
            assert response.status == 503
            assert "retry-after" in response.headers
            assert (await error_of(response))["code"] == "queue_timeout"
    running.cancel()
    await asyncio.wait((running,))
    assert running.cancelled()
    assert engine.state is EngineState.STOPPED


async def test_the_index_page_tells_the_truth(gateway: Gateway) -> None:
    async with gateway.http.get("/") as response:
        text = await response.text()
        assert response.content_type == "text/plain"
    assert "stub-model" in text
    assert "480 tokens" in text
    assert "ready" in text
    assert f"{gateway.url}/v1" in text
    gateway.maker.plans = [{"start_seconds": 60.0}]
    await gateway.engine.kill()
    await until(lambda: gateway.service.restarts == 1)
    async with gateway.http.get("/") as response:
        text = await response.text()
    assert "SIGKILL" in text
    assert "ready" not in text


async def test_a_browser_gets_a_page_that_holds_nothing(gateway: Gateway) -> None:
    accept = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    async with gateway.http.get("/", headers=accept) as response:
        assert response.content_type == "text/html"
        page = await response.text()
        policy = response.headers["content-security-policy"]
    assert "stub-model" not in page
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "<script>" not in page
    assert "style=" not in page
    assert "http:" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https:" not in page
    for name, kind in (("dashboard.css", "text/css"), ("dashboard.js", "text/javascript")):
        async with gateway.http.get(f"/{name}") as response:
            assert (response.status, response.content_type) == (200, kind)
            assert response.headers["x-content-type-options"] == "nosniff"


async def test_the_index_page_is_not_a_mirror(gateway: Gateway) -> None:
    headers = {"host": 'evil"><script>alert(1)</script>', "accept": "text/html"}
    async with gateway.http.get("/", headers=headers) as response:
        assert "evil" not in await response.text()
    async with gateway.http.get("/", headers={"host": headers["host"]}) as response:
        assert "evil" not in await response.text()


async def test_a_model_s_name_is_text_and_not_markup() -> None:
    service = Service(maker_of(StubEngine()), stub_request("<b>it's</b>"))
    async with serving(service, bind(port=0)) as url, aiohttp.ClientSession(url) as http:
        async with http.get("/", headers={"accept": "text/html"}) as response:
            assert "<b>" not in await response.text()
        async with http.get("/") as response:
            # Inside single quotes of a shell command.
            assert "it'\\''s" in await response.text()


async def test_only_what_is_needed_crosses_the_gateway(gateway: Gateway) -> None:
    headers = {
        "Authorization": "Bearer users-own-key",
        "Cookie": "a=b",
        "X-Api-Key": "other",
        "X-Conversation-Id": "5",
    }
    async with gateway.http.post(CHAT, json=MESSAGES, headers=headers) as response:
        answer = await response.read()
        received = response.headers
    (sent,) = gateway.engine.headers
    assert sent["Authorization"] == f"Bearer {KEY}"
    assert {name.lower() for name in sent} <= {
        "host", "authorization", "content-type", "content-length", "accept", "connection",
    }  # fmt: skip
    assert {name.lower() for name in received} <= {
        "content-type", "content-length", "date", "x-request-id",
    }  # fmt: skip
    assert KEY not in str(received)
    assert KEY.encode() not in answer


async def test_every_answer_has_an_id_of_its_own(gateway: Gateway) -> None:
    names = set()
    for path in ("/", "/health", "/nope", "/v1/models"):
        async with gateway.http.get(path) as response:
            names.add(response.headers["x-request-id"])
    assert len(names) == 4


async def test_our_own_mistakes_are_an_envelope_too(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(gateway.service, "refusal", broken)
    async with gateway.http.get("/health") as response:
        assert response.status == 500
        assert response.headers["x-request-id"]
        error = await error_of(response)
    assert (error["code"], error["source"]) == ("gateway_failed", "gateway")
    assert "planted" not in str(error)
    assert "planted" in caplog.text


@pytest.mark.parametrize(
    "request_",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx-endless: " + b"y" * 70_000,
        b"GET /" + b"y" * 70_000,
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"x-many: y\r\n" * 7_000,
    ],
    ids=["not-http", "http-9", "endless-header", "endless-url", "endless-headers"],
)
async def test_what_is_not_http_gets_an_envelope(gateway: Gateway, request_: bytes) -> None:
    port = int(gateway.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request_)
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nx-request-id: req_" in head
    assert json.loads(body)["error"]["code"] == "invalid_http"


async def test_a_client_that_stalls_in_its_own_body_is_let_go(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moestro.gateway.call.read_body.__defaults__", (MAX_BODY, 0.05))
    port = int(gateway.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{")
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"body_timeout" in answer
