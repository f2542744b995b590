"""`moestro keys`: who may use an endpoint of this machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from moestro.cli.options import INT_MAX, json_option
from moestro.gateway.key_file import MOST_NAME, create_key, keys_path, read_keys, revoke_key
from moestro.gateway.keys import KeyScope
from moestro.gateway.limits import Limits

if TYPE_CHECKING:
    from rich.console import Console


@click.group(name="keys")
def command() -> None:
    """API keys of the endpoints on this machine: make them, list them, take them away.

    As soon as there is one, an endpoint asks for it. What is changed here counts at once, also for
    endpoints that run.
    """


def _check_name(context: click.Context, parameter: click.Parameter, name: str) -> str:
    if len(name) > MOST_NAME:
        raise click.BadParameter(f"it has more than {MOST_NAME} characters.")
    return name


@command.command(name="create")
@click.option(
    "--name", metavar="NAME", default="", callback=_check_name, help="Whose it is, or what for."
)
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([str(scope) for scope in KeyScope]),
    multiple=True,
    default=("inference",),
    show_default=True,
    help="What it opens: the model (/v1), /metrics, or administration. May be given several times.",
)
@click.option(
    "--requests-per-minute",
    type=click.IntRange(1, INT_MAX),
    metavar="N",
    help="Requests that it may send in a minute (default: no limit).",
)
@click.option(
    "--concurrent",
    type=click.IntRange(1, INT_MAX),
    metavar="N",
    help="Requests that it may have in progress at the same time (default: no limit).",
)
@json_option
def create(
    name: str,
    scopes: tuple[str, ...],
    requests_per_minute: int | None,
    concurrent: int | None,
    as_json: bool,
) -> int:
    """Make a key. Its secret is printed on stdout, this one time."""
    limits = Limits(requests_per_minute, concurrent)
    key, secret = create_key(name, [KeyScope(scope) for scope in scopes], limits)
    if as_json:
        _print_json({"key": key.to_json(), "secret": secret})
        return 0
    from moestro.cli.show_keys import show_created

    click.echo(secret)
    show_created(key, _console(stderr=True))
    return 0


@command.command(name="list")
@json_option
def list_keys(as_json: bool) -> int:
    """The keys there are, without their secrets, which nobody has kept."""
    keys = read_keys(keys_path())
    if as_json:
        _print_json({"keys": [key.to_json() for key in keys]})
        return 0
    from moestro.cli.show_keys import show_keys

    show_keys(keys, _console())
    return 0


@command.command(name="revoke")
@click.argument("key_id", metavar="ID")
@json_option
def revoke(key_id: str, as_json: bool) -> int:
    """Take a key away for good. Requests in progress are still answered."""
    key = revoke_key(key_id)
    if as_json:
        _print_json({"revoked": key.to_json()})
        return 0
    from moestro.cli.show_keys import show_revoked

    show_revoked(key, any_left=bool(read_keys(keys_path())), console=_console())
    return 0


def _print_json(said: dict[str, Any]) -> None:
    click.echo(json.dumps(said, ensure_ascii=False))


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)
