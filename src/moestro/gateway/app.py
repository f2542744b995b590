"""The routes of the endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moestro.client.text import json_bytes
from moestro.engine import EngineState
from moestro.gateway import call as calls
from moestro.gateway import failure, request_id, transcript
from moestro.gateway.call import Check
from moestro.gateway.defaults import MAX_BODY_BYTES
from moestro.gateway.failure import Failure, RequestFailed
from moestro.gateway.index_page import index_html, index_text
from moestro.gateway.relay import Relay
from moestro.gateway.service import Service
from moestro.gateway.transcript import Api

CHAT_COMPLETIONS = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
RESPONSES = "/v1/responses"


def create_app(service: Service, *, max_body_bytes: int = MAX_BODY_BYTES) -> ASGIApp:
    """The endpoint in front of a service. It answers whether the service is ready or not."""

    async def index(request: Request) -> Response:
        text = index_text(service, request.headers.get("host"))
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(index_html(text))
        return PlainTextResponse(text)

    async def live(request: Request) -> Response:
        return _Json({"status": "live"})

    async def ready(request: Request) -> Response:
        return _health(service)

    async def list_models(request: Request) -> Response:
        return _Json({"object": "list", "data": [service.model.to_json()]})

    async def one_model(request: Request) -> Response:
        _check_model(service, request.path_params["name"])
        return _Json(service.model.to_json())

    # `route` is ours and never what the client wrote: it goes to the engine together with its key.
    async def relay(request: Request, route: str, fields: Mapping[str, Check], api: Api) -> Relay:
        body = await calls.read_body(request, max_body_bytes)
        call = calls.parse_call(body, fields)
        _check_model(service, call.model)
        return Relay(service, route, call, api)

    async def chat_completions(request: Request) -> Relay:
        return await relay(request, CHAT_COMPLETIONS, calls.CHAT, transcript.CHAT)

    async def completions(request: Request) -> Relay:
        return await relay(request, COMPLETIONS, calls.COMPLETION, transcript.COMPLETION)

    async def messages(request: Request) -> Relay:
        return await relay(request, MESSAGES, calls.MESSAGE, transcript.MESSAGE)

    async def count_tokens(request: Request) -> Relay:
        return await relay(request, COUNT_TOKENS, calls.MESSAGE, transcript.MESSAGE)

    async def responses(request: Request) -> Relay:
        return await relay(request, RESPONSES, calls.RESPONSE, transcript.RESPONSE)

    async def embeddings(request: Request) -> Response:
        calls.parse_call(await calls.read_body(request, max_body_bytes), calls.EMBEDDING)
        raise RequestFailed(
            failure.not_supported(
                "This engine was started to generate text and gives no embeddings.",
                "Use /v1/chat/completions or /v1/completions.",
            )
        )

    app = Starlette(
        routes=[
            Route("/", index),
            Route("/health", ready),
            Route("/health/live", live),
            Route("/health/ready", ready),
            Route("/v1/models", list_models),
            Route("/v1/models/{name:path}", one_model),
            Route(CHAT_COMPLETIONS, chat_completions, methods=["POST"]),
            Route(COMPLETIONS, completions, methods=["POST"]),
            Route(MESSAGES, messages, methods=["POST"]),
            Route(COUNT_TOKENS, count_tokens, methods=["POST"]),
            Route(RESPONSES, responses, methods=["POST"]),
            Route("/v1/embeddings", embeddings, methods=["POST"]),
        ],
        exception_handlers={
            RequestFailed: _request_failed,
            HTTPException: _http_exception,
            ClientDisconnect: _nobody_listens,
            Exception: _unforeseen,
        },
    )
    app.router.redirect_slashes = False
    # Outside of everything, also of Starlette's own answer to an unforeseen error.
    return _RequestId(app)


def _health(service: Service) -> Response:
    status = service.status
    summary: dict[str, Any] = {
        "status": str(status.state),
        "live": True,
        "ready": status.state is EngineState.READY,
        "model": service.model.name,
        "uptime_seconds": round(service.uptime_seconds, 3),
        "running": service.running,
        "waiting": service.queue.waiting,
        "restarts": service.restarts,
    }
    refusal = service.refusal()
    if refusal is None:
        return _Json(summary)
    summary |= {"reason": status.reason, **refusal.to_json()}
    return _Json(summary, refusal.status, refusal.headers())


def _check_model(service: Service, name: str | None) -> None:
    if name is not None and not service.model.answers_to(name):
        raise RequestFailed(failure.unknown_model(name, service.model.names))


def _respond(error: Failure) -> Response:
    return Response(error.body(), error.status, error.headers())


async def _request_failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestFailed)
    return _respond(error.failure)


async def _http_exception(request: Request, error: Exception) -> Response:
    """Starlette raises these for an unknown path or a wrong method, and for nothing else here."""
    assert isinstance(error, HTTPException)
    allowed = (error.headers or {}).get("Allow")
    if error.status_code == 405 and allowed is not None:
        response = _respond(failure.wrong_method(request.method, request.scope["path"], allowed))
        response.headers["allow"] = allowed
        return response
    routes = [route.path for route in request.app.routes if isinstance(route, Route)]
    return _respond(failure.unknown_route(request.method, request.scope["path"], routes))


async def _nobody_listens(request: Request, error: Exception) -> Response:
    return Response(status_code=499)


async def _unforeseen(request: Request, error: Exception) -> Response:
    """Starlette raises the error again after this answer, so that the server logs it."""
    return _respond(failure.internal())


class _Json(JSONResponse):
    def render(self, content: Any) -> bytes:
        return json_bytes(content)


class _RequestId:
    """Names every answer, so that a line in a log can be found again."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = (request_id.HEADER, request_id.new_request_id())

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), name]
            await send(message)

        await self._app(scope, receive, send_named)
