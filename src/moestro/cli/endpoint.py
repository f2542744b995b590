"""Which endpoint a verb talks to: the one named, the one that runs, or one of its own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from moestro.cli.services import key_for, running
from moestro.client.endpoint import EndpointClient
from moestro.errors import GatewayError, UsageError
from moestro.gateway.defaults import DEFAULT_URL
from moestro.model.splits import model_name

if TYPE_CHECKING:
    from moestro.cli.launch import Prepared

DEMO = "demo"
DEMO_NAME = "moestro-demo"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`model` is what to ask for there; None leaves it to the endpoint. `log` reads the last lines
    of its engine, where that is ours."""

    client: EndpointClient
    model: str | None
    log: Callable[[int], tuple[str, ...]] | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """An endpoint that somebody else keeps. `model` None asks it what it has."""

    url: str
    model: str | None


def find(
    model: str | None, url: str | None, options: dict[str, Any] | None = None
) -> Running | Prepared:
    """The endpoint at `url` if one is given. Otherwise the one at the default address, or another
    service of this user, if it is moestro's and serves `model`. Otherwise `model` (the demo model),
    prepared to be started.

    `options` are the parsed `engine_options`. Where one is given, the model is started with it: an
    endpoint that runs has its settings already.

    Runs in the main thread and outside of any event loop, so that Ctrl-C ends a download at once.

    Raises:
        UsageError: settings for an endpoint that runs.
        MoestroError: the model cannot be read, fetched or run here.
    """
    options = options or {}
    chosen = any(value not in (None, False) for value in options.values())
    if url is not None:
        if chosen:
            raise UsageError(
                f"What runs at {url} has its settings already.",
                hint="Leave out --url, or the settings.",
            )
        return Running(url, model)
    found = None if chosen else asyncio.run(_find_running(model))
    if found is not None:
        return found
    # Imported here: a verb that finds a running endpoint needs no engine.
    from moestro.cli.launch import prepare
    from moestro.cli.options import wishes_of

    wanted = model or DEMO
    print(f"Starting {wanted} for this call …", file=sys.stderr)
    return prepare(wanted, wishes_of(options))


@asynccontextmanager
async def reached(place: Running | Prepared) -> AsyncIterator[Endpoint]:
    """The endpoint that `find` found, ready to be asked; what it prepared runs as long as the
    context lasts.

    Raises:
        GatewayError: nothing answers there.
        EngineError: the model could not be started.
    """
    if isinstance(place, Running):
        async with EndpointClient(place.url, api_key=key_for(place.url)) as client:
            models = await client.models()
            name = place.model or (models[0].get("id") if models else None)
            yield Endpoint(client, name if isinstance(name, str) else None)
        return
    from moestro.cli.launch import launched

    async with (
        launched(place) as (base_url, key, log),
        EndpointClient(base_url, api_key=key) as client,
    ):
        yield Endpoint(client, None, log)


async def _find_running(wanted: str | None) -> Running | None:
    """At the default address, or else of the services of this user the one with the lowest port."""
    keys = {DEFAULT_URL: key_for(DEFAULT_URL)} | {one.url: one.key for one in running()}
    for url, key in keys.items():
        async with EndpointClient(url, api_key=key) as client:
            serves, name = await _serves(client, wanted)
        if serves:
            return Running(url, name)
    return None


async def _serves(client: EndpointClient, wanted: str | None) -> tuple[bool, str | None]:
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
    return {wanted, model_name(PurePath(wanted))}
