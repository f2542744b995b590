"""The routes of the endpoint."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moestro import __version__
from moestro.client.text import json_bytes
from moestro.errors import MoestroError
from moestro.gateway import call as calls
from moestro.gateway import failure, request_id, transcript
from moestro.gateway.access import Access, AccessControl, caller_of
from moestro.gateway.board import EVENTS, METRICS, ROUTING, STATUS, Board
from moestro.gateway.bounds import Bounds
from moestro.gateway.call import Check
from moestro.gateway.counted import Counted
from moestro.gateway.dashboard_page import PAGE_HEADERS, asset, wants_page
from moestro.gateway.defaults import RETRY_AFTER_SECONDS
from moestro.gateway.event_stream import EventStream
from moestro.gateway.exposition import Exposition
from moestro.gateway.failure import Failure, RequestFailed
from moestro.gateway.held import SHARE, Held, Share
from moestro.gateway.index_page import index_text
from moestro.gateway.openapi import openapi
from moestro.gateway.relay import Relay
from moestro.gateway.request_log import METER, Logged, RequestLog
from moestro.gateway.service import Service
from moestro.gateway.transcript import Api

CHAT_COMPLETIONS = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"


Asked = Callable[[Request], Awaitable[Relay]]


@dataclass(frozen=True, slots=True)
class Front:
    """How an endpoint faces its clients. Without `access` it answers everyone. `reload` reads again
    what is served and replaces the engine; it raises `MoestroError` where that fails. `board` is
    what the dashboard shows; without one it shows what the gateway knows by itself. `log` is told
    of every request under /v1."""

    access: Access | None = None
    bounds: Bounds = field(default_factory=Bounds)
    reload: Callable[[], Awaitable[None]] | None = None
    board: Board | None = None
    log: RequestLog | None = None


def create_app(service: Service, front: Front) -> ASGIApp:
    """The endpoint in front of a service. It answers whether the service is ready or not."""
    access, bounds = front.access, front.bounds
    board = front.board if front.board is not None else Board(service)
    meters, exposition = board.meters, Exposition(board)

    async def index(request: Request) -> Response:
        if wants_page(request.headers.get("accept", "")):
            return asset("index.html", PAGE_HEADERS)
        if not caller_of(request.scope).scopes:
            return PlainTextResponse(
                f"moestro {__version__} serves a model here, with a key.\n",
                headers={"vary": "accept"},
            )
        return PlainTextResponse(
            index_text(service, request.headers.get("host")), headers={"vary": "accept"}
        )

    async def style(request: Request) -> Response:
        return asset("dashboard.css")

    async def script(request: Request) -> Response:
        return asset("dashboard.js")

    async def metrics(request: Request) -> Response:
        await board.refresh()
        content, media_type = exposition.render(request.headers.get("accept", ""))
        return Response(content, headers={"content-type": media_type, "cache-control": "no-store"})

    async def status(request: Request) -> Response:
        await board.refresh()
        return _Json(board.status(), headers={"cache-control": "no-store"})

    async def events(request: Request) -> Response:
        return EventStream(board)

    async def routing(request: Request) -> Response:
        return _Json(await board.routing(), headers={"cache-control": "no-store"})

    async def document(request: Request) -> Response:
        return _Json(openapi())

    async def live(request: Request) -> Response:
        return _Json({"status": "live"})

    async def ready(request: Request) -> Response:
        return _health(service, known=bool(caller_of(request.scope).scopes))

    async def list_models(request: Request) -> Response:
        return _Json({"object": "list", "data": [service.model.to_json()]})

    async def one_model(request: Request) -> Response:
        _check_model(service, request.path_params["name"])
        return _Json(service.model.to_json())

    # `route` is ours and never what the client wrote: it goes to the engine together with its key.
    # `api` is None where nothing is streamed.
    async def relay(
        request: Request, route: str, fields: Mapping[str, Check], api: Api | None
    ) -> Relay:
        body = await calls.read_body(request, bounds.body_bytes, share=request.scope[SHARE])
        service.queue.check()  # before the work that reading it is
        call = calls.parse_call(body, fields)
        if api is not None:
            call = bounds.held(call, api.most)
        _check_model(service, call.model)
        if service.life is not None:  # until then nobody knows what it takes
            calls.check_taken(call.media, service.model.takes)
        key = caller_of(request.scope).id
        meter = None
        if route != COUNT_TOKENS:
            meter = request.scope[METER] = meters.request()
        return Relay(service, route, call, api, key=key, seconds=bounds.seconds, meter=meter)

    async def chat_completions(request: Request) -> Relay:
        return await relay(request, CHAT_COMPLETIONS, calls.CHAT, transcript.CHAT)

    async def completions(request: Request) -> Relay:
        return await relay(request, COMPLETIONS, calls.COMPLETION, transcript.COMPLETION)

    async def messages(request: Request) -> Relay:
        return await relay(request, MESSAGES, calls.MESSAGE, transcript.MESSAGE)

    async def count_tokens(request: Request) -> Relay:
        return await relay(request, COUNT_TOKENS, calls.COUNT, None)

    async def responses(request: Request) -> Relay:
        return await relay(request, RESPONSES, calls.RESPONSE, transcript.RESPONSE)

    async def embeddings(request: Request) -> Relay:
        asked = await relay(request, EMBEDDINGS, calls.EMBEDDING, None)
        if not service.request.embeddings:
            raise RequestFailed(
                failure.not_supported(
                    "This engine was started to generate text and gives no embeddings.",
                    "Serve with --embeddings, or use /v1/chat/completions or /v1/completions.",
                )
            )
        return asked

    async def reload(request: Request) -> Response:
        if front.reload is None:
            raise RequestFailed(
                failure.not_supported(
                    "What this endpoint serves can't be loaded again.",
                    "moestro serve starts one of which it can.",
                )
            )
        return await _replaced(front.reload())

    async def replace(request: Request) -> Response:
        return await _replaced(service.replace(because="an administrator asked for it"))

    async def nearly(request: Request) -> Response:
        """`_Straight` answers those paths; a route takes one with a line's end for it, too."""
        raise HTTPException(404)

    asked: dict[str, Asked] = {
        CHAT_COMPLETIONS: chat_completions,
        COMPLETIONS: completions,
        MESSAGES: messages,
        COUNT_TOKENS: count_tokens,
        RESPONSES: responses,
        EMBEDDINGS: embeddings,
    }
    app = Starlette(
        routes=[
            *(Route(path, nearly, methods=["POST"]) for path in asked),
            Route("/", index),
            Route("/dashboard.css", style),
            Route("/dashboard.js", script),
            Route(METRICS, metrics),
            Route(STATUS, status),
            Route(EVENTS, events),
            Route(ROUTING, routing),
            Route("/openapi.json", document),
            Route("/health", ready),
            Route("/health/live", live),
            Route("/health/ready", ready),
            Route("/v1/models", list_models),
            Route("/v1/models/{name:path}", one_model),
            Route("/admin/reload", reload, methods=["POST"]),
            Route("/admin/replace", replace, methods=["POST"]),
        ],
        # Inside of Starlette's answer to an unforeseen error, outside of every route.
        middleware=[
            *([] if access is None else _doors(access)),
            Middleware(_Straight, asked=asked, held=Held(bounds.bodies_bytes)),
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
    outer: ASGIApp = Counted(app, app.routes, meters)
    if front.log is not None:
        outer = Logged(outer, front.log)
    return _RequestId(outer)


def _doors(access: Access) -> list[Middleware]:
    """What a request passes on its way to the routes, from the outside."""
    doors = [Middleware(AccessControl, access=access)]
    if access.origins:
        pages = Middleware(
            CORSMiddleware,
            allow_origins=sorted(access.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["retry-after", request_id.HEADER.decode()],
        )
        doors.insert(0, pages)
    return doors


async def _replaced(replacing: Awaitable[None]) -> Response:
    """The answer when the new engine is there, or did not start."""
    try:
        await replacing
    except MoestroError as error:
        raise RequestFailed(failure.not_replaced(error)) from error
    return _Json({"status": "replaced"})


def _health(service: Service, *, known: bool) -> Response:
    """`known` callers learn what runs and why it does not; others no more than a load balancer
    needs."""
    status = service.status
    summary: dict[str, Any] = {
        "status": str(status.state),
        "live": True,
        "ready": False,
    }
    refusal = service.refusal()
    summary["ready"] = refusal is None
    if not known:
        if refusal is None:
            return _Json(summary)
        headers = {"retry-after": str(RETRY_AFTER_SECONDS)}
        return _Json(summary, refusal.status, headers)
    summary |= {
        "model": service.model.name,
        "uptime_seconds": round(service.uptime_seconds, 3),
        "running": service.running,
        "waiting": service.queue.waiting,
        "restarts": service.restarts,
    }
    if refusal is None:
        return _Json(summary)
    summary |= {"reason": status.reason, **refusal.to_json()}
    return _Json(summary, refusal.status, refusal.headers())


def _check_model(service: Service, name: str | None) -> None:
    if name is not None and not service.model.answers_to(name):
        raise RequestFailed(failure.unknown_model(name, service.model.names))


def _respond(request: Request, error: Failure) -> Response:
    body = error.body(failure.form_for(request.scope["path"]))
    return Response(body, error.status, error.headers())


async def _request_failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestFailed)
    return _respond(request, error.failure)


async def _http_exception(request: Request, error: Exception) -> Response:
    """Starlette raises these for an unknown path or a wrong method, and for nothing else here."""
    assert isinstance(error, HTTPException)
    allowed = (error.headers or {}).get("Allow")
    if error.status_code == 405 and allowed is not None:
        wrong = failure.wrong_method(request.method, request.scope["path"], allowed)
        response = _respond(request, wrong)
        response.headers["allow"] = allowed
        return response
    known = (route for route in request.app.routes if isinstance(route, Route))
    routes = [one.path_format for one in known if not one.path.startswith("/dashboard.")]
    unknown = failure.unknown_route(request.method, request.scope["path"], routes)
    return _respond(request, unknown)


async def _nobody_listens(request: Request, error: Exception) -> Response:
    return Response(status_code=499)


async def _unforeseen(request: Request, error: Exception) -> Response:
    """Starlette raises the error again after this answer, so that the server logs it."""
    return _respond(request, failure.internal())


class _Json(JSONResponse):
    def render(self, content: Any) -> bytes:
        return json_bytes(content)


class _Straight:
    """Answers what the engine is asked without a look at every route: that is what costs time."""

    def __init__(self, app: ASGIApp, asked: Mapping[str, Asked], held: Held) -> None:
        self._app = app
        self._asked = asked
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._asked.get(scope["path"]) if scope["type"] == "http" else None
        if answer is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        with Share(self._held) as scope[SHARE]:
            try:
                response: Response = await answer(request)
            except RequestFailed as refused:
                response = _respond(request, refused.failure)
            except ClientDisconnect as gone:
                response = await _nobody_listens(request, gone)
            await response(scope, receive, send)


class _RequestId:
    """Names every answer, so that a line in a log can be found again."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[request_id.IN_SCOPE] = value = request_id.new_request_id()
        name = (request_id.HEADER, value)

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), name]
            await send(message)

        await self._app(scope, receive, send_named)
