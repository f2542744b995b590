"""The tokens that an endpoint says it handled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MOST_TOKENS = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Counts:
    """Tokens of one request; None where the endpoint does not tell."""

    prompt: int | None = None
    cached: int | None = None
    output: int | None = None
    drafted: int | None = None
    accepted: int | None = None


def counts_of(usage: Mapping[str, Any] | None, timings: Mapping[str, Any] | None) -> Counts:
    """Out of OpenAI's `usage` and llama.cpp's `timings`. What cannot be a count is unknown.

    Draft tokens are llama.cpp's `draft_n` and `draft_n_accepted`, left out where nothing was
    drafted.
    """
    usage, timings = usage or {}, timings or {}
    cached = _count(_inner(usage, "prompt_tokens_details"), "cached_tokens")
    prompt = _count(usage, "prompt_tokens")
    if cached is None:
        cached = _count(timings, "cache_n")
    if cached is not None and prompt is not None and cached > prompt:
        cached = None
    drafted = _count(timings, "draft_n")
    accepted = _count(timings, "draft_n_accepted")
    if drafted is None or accepted is None or accepted > drafted:
        drafted = accepted = None
    return Counts(prompt, cached, _count(usage, "completion_tokens"), drafted, accepted)


def _inner(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = data.get(name)
    return value if isinstance(value, dict) else {}


def _count(data: Mapping[str, Any], name: str) -> int | None:
    value = data.get(name)
    # A bool is an int in Python.
    if type(value) is not int or not 0 <= value <= _MOST_TOKENS:
        return None
    return value
