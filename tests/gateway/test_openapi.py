"""The OpenAPI document, and requests that are made from it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from openapi_spec_validator import validate
from starlette.routing import Route

from moestro.cli.loop_thread import LoopThread
from moestro.gateway.access import PAGES, Access
from moestro.gateway.app import Front, create_app
from moestro.gateway.openapi import openapi
from moestro.gateway.server import bind, serving
from moestro.gateway.service import Service
from tests.gateway.stub_engine import StubMaker, stub_request

SECRET = "mo-own"
schema = schemathesis.openapi.from_dict(openapi())


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    async def reload() -> None:
        pass

    service = Service(StubMaker(), replace(stub_request(parallel=8), embeddings=True))
    front = Front(access=Access.private(SECRET), reload=reload)
    with LoopThread() as loop, loop.entered(serving(service, bind(port=0), front)) as url:
        yield url


def test_the_document_is_valid_and_has_every_route() -> None:
    document = openapi()
    validate(document)
    service = Service(StubMaker(), stub_request())
    app = create_app(service, Front())
    while not hasattr(app, "routes"):
        app = app._app  # type: ignore[union-attr]
    routes = {
        route.path.replace("{name:path}", "{name}")
        for route in app.routes
        if isinstance(route, Route)
    }
    assert set(document["paths"]) == routes - PAGES


@(schema.exclude(path="/api/events").parametrize())
@settings(
    max_examples=int(os.environ.get("MOESTRO_FUZZ_EXAMPLES", "12")),
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_requests_made_from_it(case: schemathesis.Case, url: str) -> None:
    """No status of 500 and more, none that is not in the document, no shape that is not there,
    nothing accepted that it forbids, nothing without a key."""
    case.call_and_validate(base_url=url, headers={"Authorization": f"Bearer {SECRET}"})
