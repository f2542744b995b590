"""Settings → a llama-server's flags: what its dialects share. `dialects` is the way in.

Engines are started with them (`engine.py`), and `export` writes them down. They say what
`llama_cpp/params.py` sets for the embedded engine, which is the same program. Whatever was decided
is said even where it is llama-server's own default, because a default may change, and may be
changed behind a command line by `LLAMA_ARG_…` variables and `llama.cpp/config.ini`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from moestro.errors import EngineStartFailed
from moestro.planning.settings import INT_MAX, Family, Settings

Flag = tuple[str, str | None]
"""A flag's long name and its value; None where it takes none."""

MOST_THREADS = 512
"""`GGML_MAX_N_THREADS`; thousands end in a crash."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be put into words. `gpus` are those that the server is to use; `expert_blocks` the
    blocks with routed experts, in order, of which `Settings.cpu_expert_layers` counts."""

    settings: Settings
    gpus: int = 0
    expert_blocks: tuple[int, ...] = ()
    synthetic_acceptance: tuple[float, ...] = ()

    @property
    def host_blocks(self) -> tuple[int, ...]:
        """The blocks whose routed experts stay in main memory."""
        return self.expert_blocks[: self.settings.cpu_expert_layers] if self.gpus else ()


def words(flags: Sequence[Flag]) -> list[str]:
    """As arguments of a program."""
    return [part for flag in flags for part in flag if part is not None]


def alias(name: str) -> str:
    """What clients call the model: `--alias` is a list separated by commas, without quoting."""
    return name.replace(",", "_").strip() or "model"


def counted(family: Family, what: str, number: int, most: int = INT_MAX) -> str:
    """A number that the server can hold.

    Raises:
        EngineStartFailed: it cannot.
    """
    if number > most:
        raise EngineStartFailed(
            f"{family} counts to {most:,}, and the {what} is {number:,}.",
            hint="Lower it, or leave it out to have it chosen.",
        )
    return str(number)


def cannot(family: Family, setting: str, instead: str) -> EngineStartFailed:
    """The error for a setting that a family has no way to do."""
    return EngineStartFailed(f"{family} cannot do {setting}.", hint=instead)


_LEAST_SHARE, _MOST_SHARE = 1e-30, 1e30


def shares(split: tuple[float, ...]) -> list[str]:
    """Each share in the fewest digits that are the same number in single precision, which is what
    the server keeps. Beyond its range only the ratios are kept."""
    largest = max(split)
    if largest > _MOST_SHARE or 0 < largest < _LEAST_SHARE:
        split = tuple(share / largest for share in split)
    return [_single(0.0 if share < _LEAST_SHARE else share) for share in split]


def _single(share: float) -> str:
    wanted = struct.pack("f", share)
    texts = (f"{share:.{digits}g}" for digits in range(1, 10))
    return next((text for text in texts if struct.pack("f", float(text)) == wanted), repr(share))
