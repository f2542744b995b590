"""One HTTP question to an engine on loopback, with nothing but asyncio."""

from __future__ import annotations

import asyncio
import json
from typing import Any

ANSWER_SECONDS = 5.0
"""A stopped or stuck process still accepts connections; only the clock tells."""


async def get_json(port: int, path: str, api_key: str) -> tuple[int, Any]:
    """Status and parsed body of `GET path`.

    Status 0 if nobody answered in HTTP within `ANSWER_SECONDS`.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return _parse(await _get(port, path, api_key))
    except OSError:  # which a TimeoutError is, too
        return 0, None


async def _get(port: int, path: str, api_key: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Authorization: Bearer {api_key}\r\nConnection: close\r\n\r\n".encode()
        )
        await writer.drain()
        return await reader.read()
    finally:
        writer.close()


def _parse(reply: bytes) -> tuple[int, Any]:
    head, _, body = reply.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split(b" ")
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return 0, None
    try:
        return int(words[1]), json.loads(body)
    except ValueError:
        return int(words[1]), None
