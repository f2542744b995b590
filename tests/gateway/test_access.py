"""Who may do what, asked over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from moestro.client.endpoint import EndpointClient
from moestro.errors import EngineStartFailed, GatewayError
from moestro.gateway.access import PAGES, Access, check_binding
from moestro.gateway.app import Front
from moestro.gateway.bounds import Bounds
from moestro.gateway.key_file import create_key, revoke_key
from moestro.gateway.key_ring import KeyRing
from moestro.gateway.keys import KeyScope
from moestro.gateway.limits import UNLIMITED, Limits
from moestro.gateway.server import bind, serving
from moestro.gateway.service import Service
from tests.gateway.conftest import Gateway, until
from tests.gateway.stub_engine import StubMaker, stub_request

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "Hi"}]}
DATA = ("/v1/models", "/metrics", "/api/status", "/admin/replace", "/elsewhere", "/v1", "/docs")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway" / "keys.json"


@asynccontextmanager
async def gateway(
    path: Path,
    *,
    loopback: bool = True,
    open_to_all: bool = False,
    own: str | None = None,
    origins: Sequence[str] = (),
    bounds: Bounds | None = None,
    reload: Any = None,
) -> AsyncIterator[Gateway]:
    maker = StubMaker()
    service = Service(maker, stub_request(parallel=8))
    access = Access(
        KeyRing(path), loopback=loopback, open_to_all=open_to_all, own=own, origins=origins
    )
    front = Front(access=access, bounds=bounds or Bounds(), reload=reload)
    async with (
        serving(service, bind(port=0), front) as url,
        aiohttp.ClientSession(url) as http,
    ):
        yield Gateway(url, service, http, maker)


def key(path: Path, *scopes: KeyScope, limits: Limits = UNLIMITED) -> dict[str, str]:
    _, secret = create_key("", scopes or (KeyScope.INFERENCE,), limits, path)
    return {"authorization": f"Bearer {secret}"}


async def status(at: Gateway, path: str, headers: dict[str, str] | None = None) -> int:
    post = path in (CHAT, "/admin/replace", "/admin/reload")
    method, data = ("POST", HELLO) if post else ("GET", None)
    async with at.http.request(method, path, headers=headers, json=data) as answer:
        return answer.status


async def error(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    said = (await answer.json())["error"]
    assert isinstance(said, dict)
    return said


async def test_without_keys_this_machine_may_use_the_model(path: Path) -> None:
    async with gateway(path) as at:
        assert await status(at, CHAT) == 200
        assert await status(at, "/v1/models") == 200
        assert await status(at, "/admin/replace") == 401


async def test_with_a_key_nobody_else_gets_anything(path: Path) -> None:
    headers = key(path)
    async with gateway(path) as at:
        assert await status(at, CHAT, headers) == 200
        for place in (CHAT, *DATA):
            assert await status(at, place) == 401, place
            assert await status(at, place, {"authorization": "Bearer mo-wrong"}) == 401, place
        assert at.engine.requests == [HELLO]


async def test_a_refusal_is_what_openais_clients_expect(path: Path) -> None:
    key(path)
    async with gateway(path) as at:
        async with at.http.post(CHAT, json=HELLO) as answer:
            assert answer.headers["www-authenticate"] == 'Bearer realm="moestro"'
            assert (await error(answer))["code"] == "missing_api_key"
        async with openai.AsyncOpenAI(api_key="no", base_url=f"{at.url}/v1", max_retries=0) as ai:
            with pytest.raises(openai.AuthenticationError):
                await ai.models.list()
        async with EndpointClient(at.url) as client:
            with pytest.raises(GatewayError) as refused:
                await client.models()
        assert "MOESTRO_API_KEY" in (refused.value.hint or ""), (
            "our verbs take it from nowhere else"
        )


async def test_anthropics_clients_send_their_key_and_read_their_errors(path: Path) -> None:
    secret = key(path)["authorization"].removeprefix("Bearer ")
    ask: dict[str, Any] = {
        "model": "default", "max_tokens": 3, "messages": [{"role": "user", "content": "Hi"}],
    }  # fmt: skip
    async with gateway(path) as at:
        async with anthropic.AsyncAnthropic(api_key="no", base_url=at.url, max_retries=0) as ai:
            with pytest.raises(anthropic.AuthenticationError) as caught:
                await ai.messages.create(**ask)
        said = caught.value.body
        assert isinstance(said, dict)
        assert (said["type"], said["error"]["type"]) == ("error", "authentication_error")
        async with anthropic.AsyncAnthropic(api_key=secret, base_url=at.url, max_retries=0) as ai:
            with pytest.raises(anthropic.BadRequestError) as refused:
                await ai.messages.create(**{**ask, "messages": "Hi"})
        said = refused.value.body
        assert isinstance(said, dict)
        assert said["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("scope", "open_"),
    [
        (KeyScope.INFERENCE, {CHAT: 200, "/v1/models": 200}),
        (KeyScope.METRICS, {}),
        (KeyScope.ADMIN, {"/admin/replace": 200, "/elsewhere": 404, "/docs": 404}),
    ],
)
async def test_a_scope_opens_its_routes_only(
    path: Path, scope: KeyScope, open_: dict[str, int]
) -> None:
    headers = key(path, scope)
    async with gateway(path) as at:
        for place in (CHAT, "/v1/models", "/admin/replace", "/elsewhere", "/docs"):
            assert await status(at, place, headers) == open_.get(place, 403), place


async def test_the_owners_secret_opens_all(path: Path) -> None:
    key(path)
    async with gateway(path, own="mo-own") as at:
        headers = {"authorization": "bearer  mo-own"}
        assert await status(at, CHAT, headers) == 200
        assert await status(at, "/admin/replace", headers) == 200
        assert await status(at, CHAT, {"authorization": "Bearer mo-ow"}) == 401


async def test_a_private_endpoint_knows_one_secret_only() -> None:
    service = Service(StubMaker(), stub_request())
    front = Front(access=Access.private("mo-own"))
    async with serving(service, bind(port=0), front) as url, aiohttp.ClientSession(url) as http:
        async with http.get("/v1/models") as answer:
            assert answer.status == 401
        async with http.get("/v1/models", headers={"x-api-key": "mo-own"}) as answer:
            assert answer.status == 200


async def test_health_tells_strangers_no_more_than_a_balancer_needs(path: Path) -> None:
    headers = key(path)
    async with gateway(path) as at:
        async with at.http.get("/health") as answer:
            assert await answer.json() == {"status": "ready", "live": True, "ready": True}
        async with at.http.get("/health", headers=headers) as answer:
            assert (await answer.json())["model"] == "stub-model"
        await at.service.stop()
        async with at.http.get("/health") as answer:
            assert (answer.status, answer.headers["retry-after"]) == (503, "2")
            assert (await answer.json()).keys() == {"status", "live", "ready"}
        for page in PAGES:
            async with at.http.get(page) as answer:
                assert answer.status in (200, 404)
                assert "stub" not in await answer.text()


async def test_a_key_that_is_revoked_is_refused_at_once(path: Path) -> None:
    made, secret = create_key(path=path)
    headers = {"authorization": f"Bearer {secret}"}
    async with gateway(path) as at:
        assert await status(at, CHAT, headers) == 200
        revoke_key(made.id, path)
        assert await status(at, CHAT, headers) == 401
        assert await status(at, CHAT) == 401


async def test_a_refused_body_can_be_sent_to_its_end(path: Path) -> None:
    key(path)
    async with gateway(path) as at:
        for _ in range(2):  # the second on the same connection
            async with at.http.post(CHAT, data=BytesIO(b"x" * (8 << 20))) as answer:
                assert answer.status == 401


# Other machines, and web pages


@pytest.mark.parametrize("loopback", [True, False])
@pytest.mark.parametrize("keys", [True, False])
@pytest.mark.parametrize("open_", [True, False])
def test_only_loopback_may_be_without_keys_unasked(loopback: bool, keys: bool, open_: bool) -> None:
    if loopback or keys or open_:
        check_binding(host_is_loopback=loopback, keys_exist=keys, open_to_all=open_)
        return
    with pytest.raises(GatewayError) as caught:
        check_binding(host_is_loopback=False, keys_exist=False, open_to_all=False)
    assert caught.value.hint is not None
    assert "keys create" in caught.value.hint


async def test_beyond_loopback_everyone_needs_a_key_also_when_the_last_is_gone(path: Path) -> None:
    async with gateway(path, loopback=False) as at:
        assert await status(at, CHAT) == 401
    async with gateway(path, loopback=False, open_to_all=True) as at:
        assert await status(at, CHAT) == 200
        assert await status(at, CHAT, {"host": "model.example.org"}) == 200
        assert await status(at, "/admin/replace") == 401


async def test_a_limited_key_is_limited_where_nobody_needs_one(path: Path) -> None:
    headers = key(path, limits=Limits(requests_per_minute=1))
    async with gateway(path, loopback=False, open_to_all=True) as at:
        assert [await status(at, CHAT, headers) for _ in range(2)] == [200, 429]
        assert await status(at, CHAT) == 200


@pytest.mark.parametrize(
    ("host", "fine"),
    [
        ("localhost", True),
        ("LOCALHOST:8642", True),
        ("127.0.0.1:8642", True),
        ("127.9.9.9", True),
        ("[::1]:8642", True),
        ("moestro.localhost", True),
        ("localhost.", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.nip.io", False),
        ("192.168.1.5", False),
        ("0.0.0.0", False),
        ("", False),
        ("user@localhost", False),
    ],
)
async def test_a_name_that_was_made_to_point_here_is_refused(
    path: Path, host: str, fine: bool
) -> None:
    async with gateway(path) as at:
        assert await status(at, CHAT, {"host": host}) == (200 if fine else 403)
        assert await status(at, "/health", {"host": host}) == (200 if fine else 403)


@pytest.mark.parametrize(
    ("origin", "fine"),
    [
        ("http://localhost:3000", True),
        ("http://127.0.0.1", True),
        ("chrome-extension://abcdef", True),
        ("app://obsidian.md", True),
        ("https://evil.example", False),
        ("http://localhost.evil.example", False),
        ("null", False),
        ("https://chat.example.org", False),
    ],
)
async def test_pages_of_other_sites_need_a_key(path: Path, origin: str, fine: bool) -> None:
    async with gateway(path) as at:
        assert await status(at, CHAT, {"origin": origin}) == (200 if fine else 403)
    headers = key(path)
    async with gateway(path) as at:
        assert await status(at, CHAT, {"origin": origin, **headers}) == 200


async def test_a_page_that_was_named_may_call(path: Path) -> None:
    page = "https://chat.example.org"
    preflight = {
        "origin": page,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    async with gateway(path, origins=[page]) as at:
        async with at.http.options(CHAT, headers=preflight) as answer:
            assert answer.status == 200
            assert answer.headers["access-control-allow-origin"] == page
        async with at.http.post(CHAT, json=HELLO, headers={"origin": page}) as answer:
            assert answer.status == 200
            assert answer.headers["access-control-allow-origin"] == page
        assert await status(at, CHAT, {"origin": "https://evil.example"}) == 403
        assert await status(at, "/admin/replace", {"origin": page}) == 401
    async with gateway(path) as at, at.http.options(CHAT, headers=preflight) as answer:
        assert "access-control-allow-origin" not in answer.headers


# Limits and bounds


async def test_a_rate_is_kept_for_each_key_alone(path: Path) -> None:
    ann = key(path, limits=Limits(requests_per_minute=2))
    bob = key(path, limits=Limits(requests_per_minute=2))
    async with gateway(path) as at:
        assert [await status(at, CHAT, ann) for _ in range(3)] == [200, 200, 429]
        assert await status(at, CHAT, bob) == 200
        assert await status(at, "/v1/models", ann) == 200, "only work is counted"
        async with at.http.post(CHAT, json=HELLO, headers=ann) as answer:
            assert 1 <= int(answer.headers["retry-after"]) <= 30
            assert (await error(answer))["type"] == "rate_limit_error"


async def test_only_so_many_at_once_until_one_ends(path: Path) -> None:
    headers = key(path, limits=Limits(concurrent=2))
    slow = {**HELLO, "stream": True, "stub": {"hang": True}}
    async with gateway(path) as at:
        hanging = [
            asyncio.create_task(at.http.post(CHAT, json=slow, headers=headers)) for _ in range(2)
        ]
        await until(lambda: at.engine.active == 2)
        async with at.http.post(CHAT, json=HELLO, headers=headers) as answer:
            assert (answer.status, (await error(answer))["code"]) == (429, "too_many_at_once")
            assert answer.headers["retry-after"] == "2"
        hanging[0].cancel()  # a client that leaves frees its place
        await until(lambda: at.engine.active == 1)
        await until_status(at, headers, 200)
        hanging[1].cancel()


async def until_status(at: Gateway, headers: dict[str, str], wanted: int) -> None:
    async with asyncio.timeout(10):
        while await status(at, CHAT, headers) != wanted:  # noqa: ASYNC110 (asked over HTTP)
            await asyncio.sleep(0.01)


async def test_answers_are_as_long_as_they_may_be(path: Path) -> None:
    async with gateway(path, bounds=Bounds(tokens=5)) as at:
        for asked, field, sent in (
            ({}, "max_tokens", 5),
            ({"max_tokens": 3}, "max_tokens", 3),
            ({"max_tokens": 50}, "max_tokens", 5),
            ({"max_completion_tokens": 50}, "max_completion_tokens", 5),
            ({"n_predict": -1}, "n_predict", 5),
            ({"max_tokens": 3, "n_predict": 99}, "n_predict", 5),
        ):
            async with at.http.post(CHAT, json={**HELLO, **asked}) as answer:
                assert answer.status == 200
            assert at.engine.requests[-1][field] == sent, asked
        for field in ("max_completion_tokens", "max_tokens", "n_predict"):
            asked = {"prompt": "x", field: 50}
            async with at.http.post("/v1/completions", json=asked) as answer:
                assert answer.status == 200
            assert at.engine.requests[-1][field] == 5, field


async def test_an_answer_that_takes_too_long_ends_with_a_word(path: Path) -> None:
    async with gateway(path, bounds=Bounds(seconds=0.3)) as at:
        hangs = {**HELLO, "stub": {"hang": True}}
        async with at.http.post(CHAT, json=hangs) as answer:
            assert (answer.status, (await error(answer))["code"]) == (504, "time_limit")
        await until(lambda: at.engine.active == 0)
        slow = {**HELLO, "stream": True, "stub": {"tokens": 1000, "pause": 0.01}}
        async with at.http.post(CHAT, json=slow) as answer:
            text = await answer.text()
        assert json.loads(text.split("data: ")[-1])["error"]["code"] == "time_limit"
        await until(lambda: at.engine.active == 0)


# Administration


async def test_an_administrator_replaces_the_engine(path: Path) -> None:
    headers = key(path, KeyScope.ADMIN)
    async with gateway(path) as at:
        before = at.engine
        assert await status(at, "/admin/replace", headers) == 200
        assert at.engine is not before
        assert await status(at, "/admin/reload", headers) == 501


async def test_a_reload_that_fails_says_why(path: Path) -> None:
    headers = key(path, KeyScope.ADMIN)

    async def reload() -> None:
        raise EngineStartFailed("The file is gone.", hint="Bring it back.")

    async with (
        gateway(path, reload=reload) as at,
        at.http.post("/admin/reload", headers=headers) as answer,
    ):
        said = await error(answer)
        assert (answer.status, said["code"], said["hint"]) == (
            502,
            "not_replaced",
            "Bring it back.",
        )
        assert "The file is gone." in said["message"]
