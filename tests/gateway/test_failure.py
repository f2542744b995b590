from __future__ import annotations

import json

import pytest

from moestro.gateway import failure
from moestro.gateway.failure import Failure

EVERY = [
    failure.bad_request("no", param="n"),
    failure.body_too_large(5),
    failure.body_too_slow(1.0),
    failure.unsupported_encoding("gzip"),
    failure.unknown_model("x", ["a"]),
    failure.unknown_route("GET", "/x", ["/"]),
    failure.wrong_method("GET", "/x", "POST"),
    failure.not_supported("no", "do"),
    failure.unavailable("gone", "engine_gone"),
    failure.bodies_too_large(5),
    failure.answer_too_large(5),
    failure.broke_off(),
    failure.internal(),
    failure.from_engine(400, b'{"error": {"message": "m", "type": "t"}}'),
    failure.from_engine(500, b"<html>"),
]


@pytest.mark.parametrize("error", EVERY, ids=lambda error: error.code)
def test_every_failure_has_one_shape(error: Failure) -> None:
    envelope = json.loads(error.body())
    assert set(envelope) == {"error"}
    body = envelope["error"]
    assert {"message", "type", "code", "param", "source"} <= set(body)
    assert body["message"]
    assert body["source"] in ("gateway", "engine", "request")
    assert 400 <= error.status <= 599
    assert error.headers()["content-type"] == "application/json"


def test_only_the_client_is_blamed_with_four_hundreds() -> None:
    for error in EVERY:
        assert (error.source == "request") == (400 <= error.status < 500), error


def test_an_event_is_the_envelope() -> None:
    error = failure.broke_off()
    event = error.event()
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert json.loads(event[6:]) == error.to_json()


@pytest.mark.parametrize("status", [400, 500, 501, 503])
def test_an_engine_keeps_its_status(status: int) -> None:
    body = json.dumps({"error": {"code": status, "message": "why", "type": "some_error"}})
    error = failure.from_engine(status, body.encode())
    assert (error.status, error.message, error.type) == (status, "why", "some_error")


def test_a_long_prompt_has_openai_s_code_and_the_engine_s_numbers() -> None:
    body = (
        b'{"error":{"code":400,"message":"too long","type":"exceed_context_size_error",'
        b'"n_prompt_tokens":9001,"n_ctx":1024}}'
    )
    error = failure.from_engine(400, body)
    assert error.code == "context_length_exceeded"
    assert error.to_json()["error"]["n_prompt_tokens"] == 9001
    assert error.to_json()["error"]["n_ctx"] == 1024
    assert error.hint is not None


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_of_our_key_or_route_is_not_the_client_s_fault(status: int) -> None:
    error = failure.from_engine(status, b'{"error":{"message":"Invalid API Key"}}')
    assert (error.status, error.source) == (502, "engine")


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"null", b'{"error": 5}', b'{"error": {"message": 7}}', b"\xff"]
)
def test_an_engine_may_answer_nonsense(body: bytes) -> None:
    error = failure.from_engine(500, body)
    assert error.status == 500
    assert "500" in error.message


@pytest.mark.parametrize("name", ["message", "type", "param", "source", "hint"])
def test_no_number_of_an_engine_takes_the_place_of_ours(name: str) -> None:
    error = failure.from_engine(400, json.dumps({"error": {name: 7, "n_ctx": 8}}).encode())
    body = error.to_json()["error"]
    assert body["n_ctx"] == 8
    assert body.get(name) != 7


@pytest.mark.parametrize("text", ["\ud800", "\udcff x", "a\udfff"])
def test_an_envelope_is_utf_8_whatever_it_quotes(text: str) -> None:
    error = failure.unknown_model(text, [text])
    for data in (error.body(), error.event().removeprefix(b"data: ")):
        assert "\ufffd" in json.loads(data.decode())["error"]["message"]


def test_an_engine_s_error_nested_without_end() -> None:
    deep = b'{"error":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    assert failure.from_engine(500, deep).status == 500


def test_retry_advice_is_a_header() -> None:
    assert failure.unavailable("x", "y").headers()["retry-after"] == "2"
    assert failure.not_supported("x", "y").headers()["x-should-retry"] == "false"
    assert failure.body_too_large(1).headers()["connection"] == "close"
    assert set(failure.broke_off().headers()) == {"content-type"}


def test_a_forgotten_v1_is_guessed() -> None:
    error = failure.unknown_route("POST", "/chat/completions", ["/v1/chat/completions"])
    assert error.hint is not None
    assert "/v1/chat/completions" in error.hint
