"""A gateway on a free port in front of a stub engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest_asyncio

from moestro.gateway.server import bind, serving
from moestro.gateway.service import Service
from tests.gateway.stub_engine import StubEngine, stub_request

MAX_BODY = 1_200_000
"""Above the size from which a body goes to the engine in pieces."""


@dataclass
class Gateway:
    url: str
    engine: StubEngine
    service: Service
    http: aiohttp.ClientSession


@pytest_asyncio.fixture
async def gateway() -> AsyncIterator[Gateway]:
    engine = StubEngine()
    service = Service(engine, stub_request())
    async with (
        serving(service, bind(port=0), max_body_bytes=MAX_BODY) as url,
        aiohttp.ClientSession(url) as http,
    ):
        yield Gateway(url, engine, service, http)
