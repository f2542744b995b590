"""A replay that tells another answer is noticed before its client gets a word of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from moestro.gateway.transcript import CHAT, Diverged, Transcript

REQUEST = {
    "messages": [{"role": "user", "content": "Hi"}],
    "stream": True,
    "response_format": {"type": "json_object"},
}


def event(**delta: str) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return b"data: " + json.dumps({"id": "c", "choices": [choice]}).encode() + b"\n\n"


def thinks(text: str) -> bytes:
    return event(reasoning_content=text)


def says(text: str) -> bytes:
    return event(content=text)


async def refuses(_path: str, _data: Mapping[str, Any]) -> Any:
    return None


@pytest.mark.parametrize("seed", [None, -1, -7, 0xFFFFFFFF])
def test_a_seed_that_the_engine_would_draw_is_drawn_here(seed: int | None) -> None:
    request = {**REQUEST, "seed": seed}
    body = json.loads(Transcript(CHAT, json.dumps(request).encode(), request).first_body())
    assert 0 <= body["seed"] < 0xFFFFFFFF
    assert Transcript(CHAT, b"{}", {"seed": 5}).first_body() == b"{}"


async def replayed(*said: bytes) -> Transcript:
    transcript = Transcript(CHAT, json.dumps(REQUEST).encode(), REQUEST)
    first = transcript.first_body()
    for one in said:
        assert transcript.feed(one) == one
    assert await transcript.resume(refuses) == first, "with the same seed"
    return transcript


async def test_what_the_client_has_is_left_out() -> None:
    transcript = await replayed(thinks("Hm"), thinks(" so"), says("{"))
    assert transcript.feed(thinks("Hm s")) == b""
    assert transcript.feed(thinks("o")) == b""
    assert b'{"a"' not in transcript.feed(says("{"))
    assert json.loads(transcript.feed(says('"a":1}')).removeprefix(b"data: ")) == json.loads(
        says('"a":1}').removeprefix(b"data: ")
    )


@pytest.mark.parametrize(
    "others",
    [
        [thinks("Ho")],
        [thinks("Hm so, further")],  # its text has begun already
        [thinks("Hm so"), thinks(".")],
        [thinks("Hm"), says("{")],
        [thinks("Hm so"), says("[")],
    ],
)
async def test_another_answer(others: list[bytes]) -> None:
    transcript = await replayed(thinks("Hm"), thinks(" so"), says("{"))
    *same, other = others
    for one in same:
        assert transcript.feed(one) == b""
    with pytest.raises(Diverged):
        transcript.feed(other)
