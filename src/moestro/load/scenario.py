"""What users do: sessions of turns, made from a seed, the same again for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """One request: all messages so far, and how long the answer is to be. `options` goes into the
    body as it is: tools, response_format, …"""

    messages: tuple[Message, ...]
    max_tokens: int
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Session:
    """Turns of one user, each sent when the one before it was answered. What the history of a later
    turn says is made beforehand, so that every endpoint gets the same prompts."""

    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Scenario:
    """`sessions(seed, characters_per_token)` goes on for ever; `concurrency` is how many users
    there are by default.

    `prompt_tokens` and `output_tokens` are those of a typical turn. Tokenizers differ, so prompts
    are cut to `characters_per_token` (see `calibrate`), and then have about that many. Those of a
    user's file are `fixed`: they are sent as they are.
    """

    name: str
    title: str
    prompt_tokens: int
    output_tokens: int
    concurrency: int
    sessions: Callable[[int, float], Iterator[Session]]
    fixed: bool = False
