"""Which endpoint a verb talks to: the one named, the one that runs, or one of its own."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from moestro.errors import GatewayError
from moestro.gateway.client import EndpointClient
from moestro.gateway.defaults import DEFAULT_URL

DEMO = "demo"
DEMO_NAME = "moestro-demo"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`model` is what to ask for there; None leaves it to the endpoint."""

    client: EndpointClient
    model: str | None


@asynccontextmanager
async def endpoint(model: str | None, url: str | None) -> AsyncIterator[Endpoint]:
    """The endpoint at `url` if one is given. Otherwise the one at the default address, if it is
    moestro's and serves `model`; otherwise `model` (the demo model) is started for as long as the
    context lasts.

    Raises:
        GatewayError: nothing answers at `url`.
        MoestroError: the model could not be started.
    """
    if url is not None:
        async with EndpointClient(url) as client:
            models = await client.models()
            name = model or (models[0].get("id") if models else None)
            yield Endpoint(client, name if isinstance(name, str) else None)
        return
    async with EndpointClient(DEFAULT_URL) as client:
        running, name = await _running(client, model)
        if running:
            yield Endpoint(client, name)
            return
    # Imported here: a verb that finds a running endpoint needs no engine.
    from moestro.cli.launch import launched

    wanted = model or DEMO
    print(f"Starting {wanted} for this call …", file=sys.stderr)
    async with launched(wanted) as base_url, EndpointClient(base_url) as client:
        yield Endpoint(client, None)


async def _running(client: EndpointClient, wanted: str | None) -> tuple[bool, str | None]:
    """Whether moestro serves the wanted model there, and its name."""
    try:
        models = await client.models()
    except GatewayError:
        return False, None
    ours = [model for model in models if model.get("owned_by") == "moestro"]
    for model in ours:
        if wanted is None or _names(wanted) & _served_names(model):
            return True, model.get("id")
    return False, None


def _served_names(model: dict[str, Any]) -> set[str]:
    aliases = model.get("aliases")
    names = {model.get("id"), *(aliases if isinstance(aliases, list) else ())}
    return {name for name in names if isinstance(name, str)} - {"default"}


def _names(wanted: str) -> set[str]:
    """How a model that was started from this argument may be called by its endpoint."""
    if wanted == DEMO:
        return {DEMO, DEMO_NAME}
    return {wanted, PurePath(wanted).stem if wanted.endswith(".gguf") else wanted}
