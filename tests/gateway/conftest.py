"""A gateway on a free port in front of a stub engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import aiohttp
import pytest_asyncio

from moestro.gateway.app import Front
from moestro.gateway.bounds import Bounds
from moestro.gateway.server import bind, serving
from moestro.gateway.service import Service
from tests.gateway.stub_engine import StubEngine, StubMaker, stub_request

MAX_BODY = 1_200_000
"""Above the size from which a body goes to the engine in pieces."""


@dataclass
class Gateway:
    url: str
    service: Service
    http: aiohttp.ClientSession
    maker: StubMaker

    @property
    def engine(self) -> StubEngine:
        """The one that answers now, or did last."""
        assert isinstance(self.service.engine, StubEngine)
        return self.service.engine


@pytest_asyncio.fixture
async def gateway() -> AsyncIterator[Gateway]:
    maker = StubMaker()
    service = Service(maker, stub_request())
    async with (
        serving(service, bind(port=0), Front(bounds=Bounds(body_bytes=MAX_BODY))) as url,
        aiohttp.ClientSession(url) as http,
    ):
        yield Gateway(url, service, http, maker)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what another task brings about; a generous guard against hanging."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (there is no event to wait for in the stub)
            await asyncio.sleep(0.01)
