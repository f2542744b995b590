"""`moestro models`: the models that were downloaded, and their end."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

import click

from moestro.cli.options import json_option
from moestro.errors import UsageError


@click.group(name="models")
def command() -> None:
    """Models that were downloaded: list them, remove them.

    Those from the hub lie in its own cache, which other programs of this machine share.
    """


@command.command(name="list")
@json_option
def list_models(as_json: bool) -> int:
    """The models there are, the largest first."""
    from moestro.model.downloaded import downloaded

    found = downloaded()
    if as_json:
        click.echo(json.dumps({"models": [one.to_json() for one in found]}, ensure_ascii=False))
        return 0
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from moestro.units import format_bytes
    from moestro.words import plain

    console = Console(highlight=False)
    if not found:
        console.print("No model was downloaded. moestro up hf:owner/repo fetches one.")
        return 0
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("model", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("last used", no_wrap=True)
    for one in found:
        used = datetime.fromtimestamp(one.used_at, UTC)
        table.add_row(escape(plain(one.name)), format_bytes(one.size_bytes), f"{used:%Y-%m-%d}")
    console.print(table)
    console.print(f"[dim]{format_bytes(sum(one.size_bytes for one in found))} in all[/]")
    return 0


@command.command(name="remove")
@click.argument("name", metavar="NAME")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def remove_model(name: str, yes: bool, as_json: bool) -> int:
    """Delete a downloaded model, by the name that `list` shows or its last part."""
    from moestro.cli.services import running
    from moestro.model.downloaded import find, remove
    from moestro.units import format_bytes
    from moestro.words import shown

    found = find(name)
    serving = [record for record in running() if any(map(record.holds, found.paths))]
    if serving:
        raise UsageError(
            f"{shown(found.name.rpartition('/')[2])} is served at {serving[0].url}.",
            hint="moestro stop ends it first.",
        )
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise UsageError("Nobody is here to be asked.", hint="Say --yes.")
        size = format_bytes(found.size_bytes)
        click.confirm(f"Delete {shown(found.name, 200)} ({size})?", abort=True)
    freed = remove(found)
    if as_json:
        click.echo(json.dumps({"removed": found.to_json(), "freed_bytes": freed}))
    else:
        click.echo(f"{shown(found.name, 200)} is deleted; {format_bytes(freed)} are free.")
    return 0
