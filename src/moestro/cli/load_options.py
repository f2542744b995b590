"""Options of the verbs that put a load on something: what is asked, and what is to be kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from moestro.errors import UsageError
from moestro.units import parse_duration

if TYPE_CHECKING:
    from moestro.load import Scenario, Slo

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
SCENARIO_NAMES = ("chat", "users", "long-prompt", "code-edit", "agent", "json-tools", "random")
"""Those of `moestro.load`, which help does not import; a test compares them."""

_MOST_TOKENS = 1_000_000
_MOST_NUMBERS = 32


def scenario_options(function: Decorated) -> Decorated:
    for option in (
        click.option(
            "--random",
            "random_tokens",
            metavar="P,N",
            default=None,
            help="Random words: prompts of P tokens, answers of N.",
        ),
        click.option(
            "--prompts",
            metavar="FILE",
            type=click.Path(dir_okay=False, path_type=Path),
            default=None,
            help="Prompts of your own: one per line, or JSON objects in a .jsonl file.",
        ),
        click.option(
            "--scenario",
            type=click.Choice(SCENARIO_NAMES),
            default=None,
            help="What is asked (default: chat).",
        ),
    ):
        function = option(function)
    return function


def slo_options(function: Decorated) -> Decorated:
    for option in (
        click.option(
            "--slo-latency", metavar="DURATION", default=None, help="Limit on a whole answer."
        ),
        click.option(
            "--slo-itl",
            metavar="DURATION",
            default=None,
            help="Limit on the mean time per token after the first: 100ms.",
        ),
        click.option(
            "--slo-ttft", metavar="DURATION", default=None, help="Limit on the first token: 2s."
        ),
    ):
        function = option(function)
    return function


def scenario_of(given: dict[str, Any]) -> Scenario:
    """Takes `scenario_options` out of what was given.

    Raises:
        UsageError: more than one of them, or one that cannot be read.
    """
    from moestro.load import from_file, random_scenario, scenario_named

    name, file, tokens = (given.pop(key) for key in ("scenario", "prompts", "random_tokens"))
    chosen = {"--scenario": name, "--prompts": file, "--random": tokens}
    named = [option for option, value in chosen.items() if value is not None]
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)} exclude each other: what is to be asked?")
    if file is not None:
        return from_file(file)
    if tokens is not None:
        pair = numbers(tokens, "--random", most=_MOST_TOKENS)
        if len(pair) != 2:
            raise UsageError(
                "--random takes two numbers of tokens.", hint="Write --random 512,128."
            )
        return random_scenario(*pair)
    return scenario_named(name or "chat")


def slo_of(given: dict[str, Any]) -> Slo | None:
    """Takes `slo_options` out of what was given; None where there is none."""
    from moestro.load import Slo

    names = ("slo_ttft", "slo_itl", "slo_latency")
    limits = [positive_seconds(name, given.pop(name)) for name in names]
    return None if limits == [None] * 3 else Slo(*limits)


def positive_seconds(name: str, text: str | None) -> float | None:
    """Raises UsageError: no duration, or none greater than zero."""
    if text is None:
        return None
    seconds = parse_duration(text)
    if seconds <= 0:
        raise UsageError(f"--{name.replace('_', '-')} must be greater than zero.")
    return seconds


def numbers(text: str, option: str, *, most: int) -> list[int]:
    """Raises UsageError for anything but whole numbers from 1 to `most`."""
    words = [word.strip() for word in text.split(",")]
    if len(words) > _MOST_NUMBERS or not all(_is_number(word, most) for word in words):
        raise UsageError(
            f"{option} takes numbers from 1 to {most:,} with commas between them.",
            hint=f"Write {option} 1,2,4." if option == "--sweep" else f"Write {option} 512,128.",
        )
    return [int(word) for word in words]


def _is_number(word: str, most: int) -> bool:
    return word.isascii() and word.isdigit() and len(word) < 10 and 1 <= int(word) <= most
