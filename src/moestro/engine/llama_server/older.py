"""The same flags for a llama.cpp of another release, which may know fewer of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from moestro.engine.llama_server.flags import Flag
from moestro.errors import EngineStartFailed

_EARLIER: dict[Flag | str, Flag | str] = {
    "--spec-draft-n-max": "--draft-max",
    "--spec-draft-p-min": "--draft-p-min",
    "--no-ui": "--no-webui",
    ("--load-mode", "none"): ("--no-mmap", None),
    ("--load-mode", "mlock"): ("--mlock", None),
}
"""What flags were called before; a text stands for the flag with any value."""

_IMPLIED: frozenset[Flag | str] = frozenset(
    (
        ("--load-mode", "auto"), ("--load-mode", "mmap"), ("--fit", "off"),
        "--repack", "--kv-offload", "--no-kv-unified", "--cache-ram", "--cache-idle-slots",
        "--no-cache-idle-slots", "--ctx-checkpoints", "--cors-origins", "--no-ui",
    )
)  # fmt: skip
"""Whoever lacks the flag does this anyway, or has nothing that it could be about."""


def adapted(flags: Sequence[Flag], known: Collection[str], program: str) -> tuple[Flag, ...]:
    """`flags` in the words that a server knows; `known` are the options of its `--help`.

    Raises:
        EngineStartFailed: one of them asks for something that this release cannot do.
    """
    return tuple(_each(flags, known, program))


def _each(flags: Sequence[Flag], known: Collection[str], program: str) -> Iterator[Flag]:
    for flag in flags:
        name, value = flag
        if name in known:
            yield flag
            continue
        earlier = _EARLIER.get(flag) or _EARLIER.get(name)
        if isinstance(earlier, str):
            earlier = (earlier, value)
        if earlier is not None and earlier[0] in known:
            yield earlier
        elif flag not in _IMPLIED and name not in _IMPLIED:
            said = name if value is None else f"{name} {value}"
            raise EngineStartFailed(
                f"{program} does not know {said}, which these settings need.",
                hint="Take a newer release of it, or leave the setting out.",
            )
