"""What `keys` prints for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from moestro.words import plain

if TYPE_CHECKING:
    from moestro.gateway.keys import Key


def show_created(key: Key, console: Console) -> None:
    """Goes beside the secret, which is alone on its stream."""
    console.print(escape(plain(f"{_called(key)} is made. It opens: {_scopes(key)}.")))
    console.print("Keep the secret now: it is not shown again, only its hash is stored.")
    console.print(Text("hint: clients send it as “Authorization: Bearer mo-…”.", "dim"))


def show_keys(keys: Sequence[Key], console: Console) -> None:
    if not keys:
        console.print("There are no keys: an endpoint that is started now answers every program of")
        console.print("this machine. One that began with keys refuses everyone until it has some.")
        console.print(Text("hint: moestro keys create makes one.", "dim"))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("id", no_wrap=True)
    for name in ("name", "opens", "limits", "made"):
        table.add_column(name, overflow="fold")
    for key in keys:
        cells = (key.id, key.name, _scopes(key), _limits(key), f"{key.created:%Y-%m-%d %H:%M} UTC")
        table.add_row(*(escape(plain(cell)) for cell in cells))
    console.print(table)


def show_revoked(key: Key, *, any_left: bool, console: Console) -> None:
    console.print(escape(plain(f"{_called(key)} is revoked.")))
    if not any_left:
        console.print("It was the last one. Endpoints that run refuse everyone from now on; those")
        console.print("that are started without a key answer every program of this machine.")


def _called(key: Key) -> str:
    return f"{key.id} ({key.name})" if key.name else key.id


def _scopes(key: Key) -> str:
    return ", ".join(sorted(key.scopes))


def _limits(key: Key) -> str:
    said = []
    if key.limits.requests_per_minute is not None:
        said.append(f"{key.limits.requests_per_minute}/min")
    if key.limits.concurrent is not None:
        said.append(f"{key.limits.concurrent} at once")
    return ", ".join(said) or "none"
