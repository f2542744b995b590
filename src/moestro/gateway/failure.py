"""The one error envelope, and every reason for which the gateway sends it.

    {"error": {"message": …, "type": …, "code": …, "param": …, "source": …, "hint"?: …}}

Below `/v1/messages` with Anthropic's types and its `"type": "error"` beside it.

`message`, `type`, `code` and `param` are OpenAI's; its clients pick the exception by HTTP status.
`source` says who failed: the *request*, the *engine* or the *gateway*.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from moestro.client.text import json_bytes
from moestro.errors import EngineError, GatewayError, MoestroError
from moestro.gateway.defaults import BUSY_RETRY_AFTER_SECONDS, RETRY_AFTER_SECONDS
from moestro.units import format_bytes

FailureSource = Literal["gateway", "engine", "request"]

INVALID_REQUEST = "invalid_request_error"
UNAVAILABLE = "unavailable_error"
SERVER_ERROR = "server_error"


class ErrorForm(Enum):
    """Whose clients are to read an error. Anthropic's look for `"type": "error"` beside it, and in
    a stream for an event of that name; they pass over one that has none."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


def form_for(path: str) -> ErrorForm:
    """The form of errors at a route."""
    messages = path == "/v1/messages" or path.startswith("/v1/messages/")
    return ErrorForm.ANTHROPIC if messages else ErrorForm.OPENAI


_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def _anthropic_type(status: int) -> str:
    return _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as a client sees it.

    `retry` False tells OpenAI's clients not to try again where their rule (any status from 500 on)
    would make them; `challenge` says how a client can show who it is; `details` are numbers that
    the engine added (`n_ctx`, `n_prompt_tokens`).
    """

    status: int
    message: str
    type: str
    code: str
    source: FailureSource
    param: str | None = None
    hint: str | None = None
    retry_after_seconds: int | None = None
    retry: bool | None = None
    closes: bool = False
    challenge: str | None = None
    details: Mapping[str, int] = field(default_factory=dict)

    def to_json(self, form: ErrorForm = ErrorForm.OPENAI) -> dict[str, Any]:
        error: dict[str, Any] = {
            **self.details,
            "message": self.message,
            "type": self.type,
            "code": self.code,
            "param": self.param,
            "source": self.source,
        }
        if self.hint is not None:
            error["hint"] = self.hint
        if form is ErrorForm.ANTHROPIC:
            return {"type": "error", "error": {**error, "type": _anthropic_type(self.status)}}
        return {"error": error}

    def body(self, form: ErrorForm = ErrorForm.OPENAI) -> bytes:
        return json_bytes(self.to_json(form))

    def event(self, form: ErrorForm = ErrorForm.OPENAI) -> bytes:
        """The envelope as the last server-sent event of a stream that broke."""
        name = b"event: error\n" if form is ErrorForm.ANTHROPIC else b""
        return name + b"data: " + self.body(form) + b"\n\n"

    def headers(self) -> dict[str, str]:
        headers = {"content-type": "application/json"}
        if self.retry_after_seconds is not None:
            headers["retry-after"] = str(self.retry_after_seconds)
        if self.retry is not None:
            headers["x-should-retry"] = "true" if self.retry else "false"
        if self.challenge is not None:
            headers["www-authenticate"] = self.challenge
        if self.closes:
            headers["connection"] = "close"
        return headers


class RequestFailed(GatewayError):
    """Carries a `Failure` up to the one place that answers with it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message, hint=failure.hint, code=failure.code)
        self.failure = failure


def bad_request(
    message: str, *, param: str | None = None, code: str = "invalid_value", hint: str | None = None
) -> Failure:
    return Failure(
        status=400,
        message=message,
        type=INVALID_REQUEST,
        code=code,
        param=param,
        hint=hint,
        source="request",
    )


def body_too_large(limit_bytes: int) -> Failure:
    return Failure(
        status=413,
        message=f"The request body is larger than {limit_bytes} bytes.",
        type=INVALID_REQUEST,
        code="body_too_large",
        source="request",
        hint="Send a shorter conversation or smaller images.",
        closes=True,
    )


def body_too_slow(idle_seconds: float, *, whole: bool = False) -> Failure:
    """`whole`: it is the body as a whole that took so long, and not a pause in it."""
    took = f"The request body was not complete after {idle_seconds:g} s."
    paused = f"No more of the request body arrived for {idle_seconds:g} s."
    return Failure(
        status=408,
        message=took if whole else paused,
        type=INVALID_REQUEST,
        code="body_timeout",
        source="request",
        retry=False,
        closes=True,
    )


def head_too_slow(seconds: float) -> Failure:
    return Failure(
        status=408,
        message=f"The head of the request was not complete after {seconds:g} s.",
        type=INVALID_REQUEST,
        code="head_timeout",
        source="request",
        closes=True,
    )


def too_many_connections() -> Failure:
    return Failure(
        status=503,
        message="There are as many connections as this process may have open.",
        type=UNAVAILABLE,
        code="too_many_connections",
        source="gateway",
        hint="Try again in a moment; a larger limit of open files (ulimit -n) has room for more.",
        retry_after_seconds=BUSY_RETRY_AFTER_SECONDS,
        closes=True,
    )


def unsupported_encoding(encoding: str) -> Failure:
    return Failure(
        status=415,
        message=f"Request bodies with content-encoding “{encoding[:40]}” are not read.",
        type=INVALID_REQUEST,
        code="unsupported_content_encoding",
        source="request",
        hint="Send the JSON uncompressed.",
    )


def unknown_model(name: str, names: Sequence[str]) -> Failure:
    return Failure(
        status=404,
        message=f"The model “{name[:200]}” does not exist here.",
        type=INVALID_REQUEST,
        code="model_not_found",
        param="model",
        source="request",
        hint=f"Use one of: {', '.join(names)}.",
    )


def unknown_route(method: str, path: str, routes: Sequence[str]) -> Failure:
    hint = f"There is: {', '.join(routes)}."
    if f"/v1{path}" in routes:
        hint = f"Did you mean /v1{path}? The base URL of an OpenAI client ends in /v1."
    return Failure(
        status=404,
        message=f"There is nothing at {method} {path[:200]}.",
        type=INVALID_REQUEST,
        code="unknown_route",
        source="request",
        hint=hint,
    )


def wrong_method(method: str, path: str, allowed: str) -> Failure:
    return Failure(
        status=405,
        message=f"{path[:200]} does not take {method}.",
        type=INVALID_REQUEST,
        code="method_not_allowed",
        source="request",
        hint=f"Use {allowed}.",
    )


def unauthorized(*, given: bool) -> Failure:
    """`given` says whether there was a key at all. Which one it was is nobody's business."""
    return Failure(
        status=401,
        message="This API key is not valid here." if given else "An API key is needed here.",
        type=INVALID_REQUEST,
        code="invalid_api_key" if given else "missing_api_key",
        source="request",
        hint="Send one that moestro keys create made, as “Authorization: Bearer mo-…”.",
        challenge='Bearer realm="moestro"',  # `doctor` knows a moestro by it
    )


def forbidden(message: str, code: str, hint: str) -> Failure:
    return Failure(
        status=403,
        message=message,
        type="permission_error",
        code=code,
        source="request",
        hint=hint,
    )


def rate_limited(per_minute: int, seconds: int) -> Failure:
    """`seconds` is when the next request finds a place, if no other takes it."""
    return Failure(
        status=429,
        message=f"{per_minute} requests per minute are allowed here, and were sent.",
        type="rate_limit_error",
        code="rate_limit_exceeded",
        source="request",
        hint=f"The next one may come in {seconds} s.",
        retry_after_seconds=seconds,
    )


def too_many_at_once(most: int) -> Failure:
    return Failure(
        status=429,
        message=f"{most} of these requests may run at the same time, and do.",
        type="rate_limit_error",
        code="too_many_at_once",
        source="request",
        hint="The next one may come when one of them has its answer.",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


def not_supported(message: str, hint: str) -> Failure:
    return Failure(
        status=501,
        message=message,
        type="not_supported_error",
        code="not_supported",
        source="engine",
        hint=hint,
        retry=False,
    )


def unavailable(
    message: str, code: str, *, source: FailureSource = "engine", hint: str | None = None
) -> Failure:
    return Failure(
        status=503,
        message=message,
        type=UNAVAILABLE,
        code=code,
        source=source,
        hint=hint,
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )


def queue_full(most: int) -> Failure:
    return Failure(
        status=503,
        message=f"{most} requests are waiting for the engine already.",
        type=UNAVAILABLE,
        code="queue_full",
        source="gateway",
        hint="Try again in a moment, or send fewer at once.",
        retry_after_seconds=BUSY_RETRY_AFTER_SECONDS,
    )


def bodies_too_large(most_bytes: int) -> Failure:
    return Failure(
        status=503,
        message=f"Requests in progress hold {format_bytes(most_bytes)} already.",
        type=UNAVAILABLE,
        code="bodies_too_large",
        source="gateway",
        hint="Try again in a moment, or send fewer large ones at once.",
        retry_after_seconds=BUSY_RETRY_AFTER_SECONDS,
    )


def waited_too_long(seconds: float) -> Failure:
    return Failure(
        status=503,
        message=f"The request waited {seconds:g} s for the engine, and its turn did not come.",
        type=UNAVAILABLE,
        code="queue_timeout",
        source="gateway",
        hint="GET /health says how the engine is.",
        retry_after_seconds=BUSY_RETRY_AFTER_SECONDS,
    )


def ends_engines(times: int) -> Failure:
    return Failure(
        status=500,
        message=f"{times} engines crashed while they worked on this request, the last one with "
        "nothing else to do.",
        type=SERVER_ERROR,
        code="request_crashes_engine",
        source="engine",
        hint="It meets a fault of the engine: change the request, or the settings.",
        retry=False,
    )


def diverged() -> Failure:
    return Failure(
        status=502,
        message="The engine ended in the middle of this answer, and the next one answers "
        "otherwise: the rest would not fit.",
        type=SERVER_ERROR,
        code="answer_diverged",
        source="engine",
        hint="Ask again.",
    )


def not_replaced(error: MoestroError) -> Failure:
    return Failure(
        status=502 if isinstance(error, EngineError) else 409,
        message=f"The engine stays as it was: {error.sentence}",
        type=SERVER_ERROR,
        code="not_replaced",
        source="engine" if isinstance(error, EngineError) else "gateway",
        hint=error.hint,
        retry=False,
    )


def took_too_long(seconds: float) -> Failure:
    return Failure(
        status=504,
        message=f"The answer was not complete after {seconds:g} s, as long as one may take here.",
        type=SERVER_ERROR,
        code="time_limit",
        source="gateway",
        hint="Ask for fewer tokens (max_tokens).",
        retry=False,
    )


def broke_off() -> Failure:
    return Failure(
        status=502,
        message="The engine closed the connection before its answer was complete.",
        type=SERVER_ERROR,
        code="engine_broke_off",
        source="engine",
        hint="The engine is still running; try again.",
    )


def answer_too_large(most_bytes: int) -> Failure:
    return Failure(
        status=502,
        message=f"The answer takes more than {format_bytes(most_bytes)}.",
        type=SERVER_ERROR,
        code="answer_too_large",
        source="gateway",
        hint="Ask for it as a stream, or in smaller parts.",
        retry=False,
    )


def internal() -> Failure:
    return Failure(
        status=500,
        message="The gateway failed on this request; its log has the details.",
        type=SERVER_ERROR,
        code="gateway_failed",
        source="gateway",
        retry=False,
    )


_ENGINE_CODES = {
    "exceed_context_size_error": "context_length_exceeded",
    "invalid_request_error": "invalid_request",
    "not_supported_error": "not_supported",
    "not_found_error": "not_found",
    "unavailable_error": "engine_unavailable",
    "server_error": "engine_failed",
}
_ENGINE_HINTS = {
    "exceed_context_size_error": "Shorten the prompt, or restart with a larger --context.",
}
_DETAILS_MAX = 8


def from_engine(status: int, body: bytes) -> Failure:
    """What an engine answered instead of a completion, in our envelope and with its status.

    401, 403 and 404 from an engine are our own mistakes (its key, its routes), never the client's:
    they become 502.
    """
    error = _engine_error(body)
    raw_type = error.get("type")
    kind = raw_type if isinstance(raw_type, str) else SERVER_ERROR
    message = error.get("message")
    if not isinstance(message, str) or not message:
        message = f"The engine answered with HTTP status {status} and no explanation."
    if status in (401, 403, 404):
        return Failure(
            status=502,
            message=f"The engine refused the gateway: {message}",
            type=SERVER_ERROR,
            code="engine_refused",
            source="engine",
            retry=False,
        )
    if not 400 <= status <= 599:
        status = 502
    details = {
        key: value
        for key, value in error.items()
        if key not in ("code", "status", "hint")
        and isinstance(value, int)
        and not isinstance(value, bool)
    }
    return Failure(
        status=status,
        message=message,
        type=kind,
        code=_ENGINE_CODES.get(kind, "engine_error"),
        source="request" if 400 <= status < 500 else "engine",
        hint=_ENGINE_HINTS.get(kind),
        retry_after_seconds=RETRY_AFTER_SECONDS if status == 503 else None,
        retry=False if status == 501 else None,
        details=dict(list(details.items())[:_DETAILS_MAX]),
    )


def _engine_error(body: bytes) -> Mapping[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}
