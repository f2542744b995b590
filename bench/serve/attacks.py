"""What sockets can say that is no request, or none that anybody should send.

`RAW` are bytes, each with what the gateway may answer: statuses, or nothing at all (the connection
is closed). None of them may be answered by 500 and more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from dataclasses import dataclass

CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
HELLO = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}).encode()
ANSWER_SECONDS = 20.0
MOST_ANSWER_BYTES = 1 << 20


def _post(body: bytes, headers: bytes = b"") -> bytes:
    return CHAT + headers + b"content-length: %d\r\n\r\n" % len(body) + body


def _chunked(*chunks: bytes) -> bytes:
    return CHAT + b"transfer-encoding: chunked\r\n\r\n" + b"".join(chunks)


_CHUNK = b"%x\r\n%b\r\n" % (len(HELLO), HELLO)

RAW: dict[str, bytes] = {
    "nothing": b"",
    "not http": b"hello\r\n\r\n",
    "tls": bytes.fromhex("160301020001000001fc0303") + b"\0" * 200,
    "zeros": b"\0" * 5000,
    "http 0.9": b"GET /\r\n\r\n",
    "http 1.0": b"GET /health HTTP/1.0\r\n\r\n",
    "http 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "http 9": b"GET / HTTP/9.9\r\n\r\n",
    "absurd method": b"BREW /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "lower method": b"get / HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "connect": b"CONNECT example.org:443 HTTP/1.1\r\nhost: example.org\r\n\r\n",
    "absolute url": b"GET http://example.org/ HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nhost: localhost\r\nhost: example.org\r\n\r\n",
    "upgrade": b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n"
    b"upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: eA==\r\n\r\n",
    "bad utf-8 in the path": b"GET /v1/models/\xff\xfe HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "bad escapes": b"GET /v1/models/%ff%00%zz HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "bad utf-8 in a header": b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx: \xff\r\n\r\n",
    "a zero in a header": b"GET / HTTP/1.1\r\nhost: localhost\r\nx: a\0b\r\n\r\n",
    "a bare line end": b"GET / HTTP/1.1\nhost: localhost\n\n",
    "a folded header": b"GET / HTTP/1.1\r\nhost: localhost\r\nx: a\r\n b\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nhost : localhost\r\n\r\n",
    "a long url": b"GET /" + b"y" * 70_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a long header": b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 70_000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
    "bad utf-8 in the body": _post(b'{"messages":[{"role":"user","content":"\xff"}]}'),
    "half a surrogate": _post(b'{"messages":[{"role":"user","content":"\\ud800"}]}'),
    "an empty body": _post(b""),
    "no json": _post(b"{"),
    "deep json": _post(b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "long numbers": _post(b'{"messages":[],"seed":' + b"9" * 20_000 + b"}"),
    "a wide array": _post(b'{"prompt":[' + b"1," * 400_000 + b"1]}"),
    "a body that is shorter": CHAT + b"content-length: 5000\r\n\r\n" + HELLO,
    "a length below zero": CHAT + b"content-length: -1\r\n\r\n" + HELLO,
    "a huge length": CHAT + b"content-length: 99999999999999999999\r\n\r\n" + HELLO,
    "two lengths": CHAT + b"content-length: 5\r\ncontent-length: 6\r\n\r\n" + HELLO,
    "length and chunks": CHAT
    + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"
    + _CHUNK
    + b"0\r\n\r\nGET /admin HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "chunks, twice": CHAT
    + b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n"
    + _CHUNK
    + b"0\r\n\r\n",
    "a chunk without a size": _chunked(b"zz\r\nabc\r\n0\r\n\r\n"),
    "a chunk of a huge size": _chunked(b"ffffffffffffffff\r\nabc\r\n"),
    "a chunk of a wrong size": _chunked(b"3\r\nabcdef\r\n0\r\n\r\n"),
    "chunks without an end": _chunked(_CHUNK),
    "many small chunks": _chunked(*(b"1\r\n \r\n",) * 50_000, _CHUNK, b"0\r\n\r\n"),
    "a long chunk extension": _chunked(b"1;" + b"x" * 200_000 + b"\r\n \r\n0\r\n\r\n"),
    "pipelined": _post(HELLO) * 3,
    "a request and garbage": _post(HELLO) + b"\xff" * 1000,
    "expect": _post(HELLO, b"expect: 100-continue\r\n"),
    "compressed": _post(b"\x1f\x8b\x08" + b"\0" * 50, b"content-encoding: gzip\r\n"),
    "a huge body": _post(b"{" + b" " * (40 << 20)),
}


@dataclass(frozen=True)
class Got:
    """`status` None: the connection was closed without a word. `closed` False: neither an answer
    nor an end came in time."""

    status: int | None
    closed: bool


async def send(host: str, port: int, data: bytes, *, leave_after: float | None = None) -> Got:
    """Says that and half-closes; reads what comes. `leave_after` so many seconds it is gone."""
    reader, writer = await asyncio.open_connection(host, port)
    answer = bytearray()
    closed = False
    try:
        async with asyncio.timeout(leave_after or ANSWER_SECONDS):
            with contextlib.suppress(ConnectionError):
                writer.write(data)
                await writer.drain()
                writer.write_eof()
            while len(answer) < MOST_ANSWER_BYTES:
                piece = await reader.read(65536)
                if not piece:
                    break
                answer += piece
            closed = True
    except TimeoutError:
        pass
    except ConnectionError:
        closed = True
    finally:
        writer.transport.abort()
    words = bytes(answer[:12]).split(b" ")
    status = int(words[1]) if len(words) > 1 and words[1][:3].isdigit() else None
    return Got(status, closed)


def mangled(data: bytes, dice: random.Random) -> bytes:
    """A request with some of its bytes changed, taken out or put in twice."""
    found = bytearray(data[:20_000])
    for _ in range(dice.randint(1, 8)):
        if not found:
            break
        place = dice.randrange(len(found))
        match dice.randrange(4):
            case 0:
                found[place] = dice.randrange(256)
            case 1:
                del found[place : place + dice.randint(1, 20)]
            case 2:
                found[place:place] = found[place : place + dice.randint(1, 50)]
            case _:
                found[place:place] = bytes(dice.randrange(256) for _ in range(dice.randint(1, 8)))
    return bytes(found)
