"""`moestro status`: which services of this user run, and how they are."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from moestro.cli.options import json_option
from moestro.cli.services import Record, running

ASK_SECONDS = 5.0


@click.command(name="status")
@json_option
def command(as_json: bool) -> int:
    """The services of this user on this machine. Exit status 1 if one of them is not ready, or if
    there is none."""
    found = [(record, _health(record)) for record in running()]
    if as_json:
        services = [{**_told(record), "health": health} for record, health in found]
        print(json.dumps({"services": services}, ensure_ascii=False))
    elif not found:
        print("No service runs here. moestro serve MODEL starts one.")
    else:
        _show(found)
    return 0 if found and all(_ready(health) for _, health in found) else 1


def _ready(health: dict[str, Any] | None) -> bool:
    return health is not None and health.get("ready") is True


def _told(record: Record) -> dict[str, Any]:
    """All but the key: what is printed here ends up in logs."""
    return {name: value for name, value in asdict(record).items() if name != "key"}


def _health(record: Record) -> dict[str, Any] | None:
    """What it says of itself; None where it does not answer."""
    import asyncio

    import aiohttp

    async def ask() -> Any:
        timeout = aiohttp.ClientTimeout(total=ASK_SECONDS)
        headers = {"authorization": f"Bearer {record.key}"}
        async with (
            aiohttp.ClientSession(timeout=timeout, headers=headers) as http,
            http.get(f"{record.url}/health") as answer,
        ):
            return await answer.json()

    try:
        said = asyncio.run(ask())
    except (aiohttp.ClientError, OSError, ValueError):
        return None
    return said if isinstance(said, dict) else None


def _show(found: list[tuple[Record, dict[str, Any] | None]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from moestro.words import plain

    console = Console(highlight=False)
    for record, health in found:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column()
        grid.add_row("service", f"{record.url}/v1, process {record.pid}")
        grid.add_row("model", Text(plain(record.model)))
        if health is None:
            grid.add_row("state", "it does not answer (it may still be starting)")
        else:
            reason = health.get("reason")
            said = f"{health.get('status')}{f': {reason}' if reason else ''}"
            grid.add_row("state", Text(plain(said)))
            grid.add_row(
                "requests", f"{health.get('running')} with the engine, {health.get('waiting')} wait"
            )
            grid.add_row("restarts", str(health.get("restarts")))
            grid.add_row("up for", _duration(float(health.get("uptime_seconds") or 0)))
        if record.log:
            grid.add_row("log", Text(plain(record.log)))
        console.print(grid)
        console.print()


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
