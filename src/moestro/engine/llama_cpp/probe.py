"""One HTTP question to an engine on loopback, with nothing but asyncio."""

from __future__ import annotations

import asyncio
import json
from typing import Any


async def get_json(port: int, path: str, api_key: str) -> tuple[int, Any]:
    """Status and parsed body of `GET path`; status 0 if nobody answered in HTTP."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return 0, None
    try:
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Authorization: Bearer {api_key}\r\nConnection: close\r\n\r\n".encode()
        )
        await writer.drain()
        reply = await reader.read()
    except OSError:
        return 0, None
    finally:
        writer.close()
    return _parse(reply)


def _parse(reply: bytes) -> tuple[int, Any]:
    head, _, body = reply.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split(b" ")
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return 0, None
    try:
        return int(words[1]), json.loads(body)
    except ValueError:
        return int(words[1]), None
