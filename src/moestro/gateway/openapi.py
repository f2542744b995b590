"""The endpoint as an OpenAPI document, made from the tables that check its requests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from moestro import __version__
from moestro.gateway import call as calls
from moestro.gateway.call import REQUIRED, Check

Json = dict[str, Any]

_REFUSED = (400, 401, 403, 405)
"""What any route may answer that needs a key."""

_UNREAD = (*_REFUSED, 404, 408, 413, 415, 429)
"""And one that reads a body."""

_ENGINE = (500, 501, 502, 503, 504)
"""And one that asks the engine."""

_WORDS = {
    400: "The request is wrong; `param` names the field.",
    401: "A key is needed.",
    403: "The key is for other routes, or the page for others.",
    404: "There is no such route or model.",
    405: "The route does not take this method.",
    408: "The body came too slowly.",
    409: "What was read again cannot be used; the engine stays as it was.",
    413: "The body is too large.",
    415: "The body is compressed.",
    429: "More than the key may ask for; Retry-After says when there is room.",
    500: "The engine failed on this request.",
    501: "The engine cannot do that.",
    502: "The engine broke off, or did not start.",
    503: "No engine answers now; Retry-After says when to come back.",
    504: "The answer took longer than one may.",
}


def openapi() -> Json:
    """OpenAPI 3.1. Fields of the engine's own are allowed beside those that are named."""
    stream = "text/event-stream"
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "moestro",
            "version": __version__,
            "description": "One OpenAI endpoint in front of an engine.",
        },
        "paths": {
            "/v1/models": {"get": _plain("The model and its limits.")},
            "/v1/models/{name}": {
                "get": {
                    **_plain("One model.", 404),
                    "parameters": [
                        {
                            "name": "name", "in": "path", "required": True,
                            "schema": {"type": "string"},
                        }
                    ],
                }
            },
            "/v1/chat/completions": _post("A chat.", calls.CHAT, stream),
            "/v1/completions": _post("A continuation of a text.", calls.COMPLETION, stream),
            "/v1/responses": _post("OpenAI's responses.", calls.RESPONSE, stream),
            "/v1/embeddings": _post("Vectors of texts.", calls.EMBEDDING),
            "/v1/messages": _post("Anthropic's messages.", calls.MESSAGE, stream),
            "/v1/messages/count_tokens": _post("How long a prompt is.", calls.COUNT),
            "/metrics": {"get": _plain("For Prometheus.", media=("text/plain",))},
            "/api/status": {"get": _plain("All that the dashboard shows.")},
            "/api/routing": {"get": _plain("The routers as the last verification found them.")},
            "/api/events": {"get": _plain("What happens, as it happens.", 503, media=(stream,))},
            "/admin/reload": {"post": _plain("Reads again what is served.", 409, 501, 502)},
            "/admin/replace": {"post": _plain("Another engine of the same kind.", 409, 502)},
            "/health": {"get": _health("Whether requests are served.")},
            "/health/ready": {"get": _health("The same.")},
            "/health/live": {"get": _plain("Whether the gateway runs.")},
        },
        "components": {
            "schemas": {
                "Error": _ERROR,
                "Part": {
                    "type": "object",
                    "required": ["type"],
                    "properties": {"type": {"type": "string"}},
                    "if": {"properties": {"type": {"const": "text"}}},
                    "then": {"required": ["text"], "properties": {"text": {"type": "string"}}},
                },
                "Function": {
                    "type": "object",
                    "required": ["type", "function"],
                    "properties": {
                        "type": {"const": "function"},
                        "function": {
                            "type": "object",
                            "required": ["name"],
                            "properties": {"name": {"type": "string"}},
                        },
                    },
                },
            },
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }  # fmt: skip


_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "param", "source"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "code": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "source": {"enum": ["request", "engine", "gateway"]},
                "hint": {"type": "string"},
            },
        },
    },
}


def _answers(summary: str, statuses: Iterable[int], media: Iterable[str]) -> Json:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    found: Json = {"200": {"description": summary, "content": {one: {} for one in media}}}
    for status in sorted(set(statuses)):
        found[str(status)] = {"description": _WORDS[status], "content": error}
    return found


def _plain(summary: str, *more: int, media: Iterable[str] = ("application/json",)) -> Json:
    return {"summary": summary, "responses": _answers(summary, (*_REFUSED, *more), media)}


def _health(summary: str) -> Json:
    """An answer that says how it is, with a status that says so, too."""
    found = _plain(summary, 503)
    found["responses"]["503"]["content"] = {"application/json": {}}
    return found


def _post(summary: str, fields: Mapping[str, Check], *media: str) -> Json:
    properties = {
        name: check.schema if name in REQUIRED else {"anyOf": [check.schema, {"type": "null"}]}
        for name, check in fields.items()
    }
    body = {
        "type": "object",
        "required": [name for name in fields if name in REQUIRED],
        "properties": properties,
    }
    statuses = (*_UNREAD, *_ENGINE)
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": _answers(summary, statuses, ("application/json", *media)),
        }
    }
