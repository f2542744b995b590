"""How an endpoint of this machine faces its clients: keys, bounds, pages that may call it."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from moestro.cli.options import INT_MAX
from moestro.doctor.case import Address
from moestro.doctor.listening import only_this_machine

if TYPE_CHECKING:
    from moestro.cli.launch import Prepared
    from moestro.engine import EngineRequest
    from moestro.gateway.app import Front
    from moestro.gateway.board import Board

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--no-keys",
        is_flag=True,
        help="Let everyone in who reaches the address: something else looks who comes.",
    ),
    click.option(
        "--allow-origin",
        "origins",
        metavar="ORIGIN",
        multiple=True,
        help="Web pages that may call it, like https://chat.example.org. May be given several "
        "times; * is all.",
    ),
    click.option("--embeddings", is_flag=True, help="Give embeddings, too (/v1/embeddings)."),
    click.option(
        "--thinking",
        type=click.Choice(("on", "off")),
        help="Whether the model thinks where a request does not say (default: as its template "
        "has it).",
    ),
    click.option(
        "--unload-after",
        metavar="TIME",
        help="Unload the model when nobody asked for so long, like 30m; the next request loads "
        "it again (default: never).",
    ),
    click.option(
        "--engine-memory",
        metavar="SIZE",
        help="Memory of its own at which an engine is replaced, like 20GiB (default: what the "
        "machine has).",
    ),
    click.option(
        "--max-answer-tokens",
        type=click.IntRange(1, INT_MAX),
        metavar="N",
        help="Tokens of an answer, at most (default: what the context holds).",
    ),
    click.option(
        "--max-answer-seconds",
        type=click.FloatRange(0, min_open=True),
        metavar="S",
        help="Seconds that an answer may take, with its wait (default: no limit).",
    ),
)


def front_options(function: Decorated) -> Decorated:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def _new_secret() -> str:
    from moestro.gateway.keys import new_secret

    return new_secret()


@dataclass(frozen=True, slots=True)
class Facing:
    """What the options say. `secret` is the key of this process, which only its user knows."""

    no_keys: bool = False
    origins: tuple[str, ...] = ()
    max_answer_tokens: int | None = None
    max_answer_seconds: float | None = None
    engine_memory_bytes: int | None = None
    unload_seconds: float | None = None
    embeddings: bool = False
    thinking: bool | None = None
    secret: str = field(default_factory=_new_secret, repr=False)

    @classmethod
    def taken_from(cls, options: dict[str, Any]) -> Facing:
        """Takes its options out of those of a verb.

        Raises:
            UsageError: a size or a time that is none.
        """
        from moestro.units import parse_duration, parse_size

        memory, thinking = options.pop("engine_memory"), options.pop("thinking")
        unload = options.pop("unload_after")
        return cls(
            no_keys=options.pop("no_keys"),
            origins=options.pop("origins"),
            max_answer_tokens=options.pop("max_answer_tokens"),
            max_answer_seconds=options.pop("max_answer_seconds"),
            engine_memory_bytes=None if memory is None else parse_size(memory),
            unload_seconds=None if unload is None else parse_duration(unload),
            embeddings=options.pop("embeddings"),
            thinking=None if thinking is None else thinking == "on",
        )

    def request(self, prepared: Prepared) -> EngineRequest:
        """What the engine is to do."""
        return prepared.request(embeddings=self.embeddings, thinking=self.thinking)

    def address(self, listener: socket.socket) -> Address:
        """Where it listens, and whether callers need a key.

        Raises:
            GatewayError: others could use it, there are no keys, and nobody said so; or the keys
                cannot be read.
        """
        from moestro.gateway.access import check_binding
        from moestro.gateway.key_file import keys_path, read_keys

        host, port = listener.getsockname()[:2]
        keys = bool(read_keys(keys_path()))
        check_binding(
            host_is_loopback=_only_here(listener), keys_exist=keys, open_to_all=self.no_keys
        )
        return Address(host, port, keys=keys and not self.no_keys, meant_open=self.no_keys)

    def front(
        self,
        listener: socket.socket,
        on_note: Callable[[str], None],
        board: Board,
        reload: Callable[[], Awaitable[None]] | None = None,
    ) -> Front:
        """
        Raises:
            GatewayError: the keys cannot be read.
        """
        from moestro.gateway.access import Access
        from moestro.gateway.app import Front
        from moestro.gateway.bounds import Bounds
        from moestro.gateway.key_ring import KeyRing

        access = Access(
            KeyRing(on_note=on_note),
            loopback=_only_here(listener),
            open_to_all=self.no_keys,
            own=self.secret,
            origins=self.origins,
        )
        bounds = Bounds(tokens=self.max_answer_tokens, seconds=self.max_answer_seconds)
        return Front(access=access, bounds=bounds, reload=reload, board=board)


def _only_here(listener: socket.socket) -> bool:
    return only_this_machine((listener.family, listener.getsockname()))
