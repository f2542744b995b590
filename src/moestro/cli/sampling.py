"""Options of `run` and `chat` that shape an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import click

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Sampling:
    """None leaves a value to the model's own defaults."""

    max_tokens: int | None = None
    temperature: float | None = None
    seed: int | None = None

    @staticmethod
    def taken_from(options: dict[str, Any]) -> Sampling:
        """Takes what `sampling_options` parsed out of `options`."""
        return Sampling(**{field.name: options.pop(field.name) for field in fields(Sampling)})

    def to_request(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


def sampling_options(function: Decorated) -> Decorated:
    for option in (
        click.option("--seed", type=click.IntRange(0, (1 << 32) - 1), default=None),
        click.option(
            "--temperature",
            type=click.FloatRange(0),
            default=None,
            metavar="T",
            help="0 always takes the likeliest token.",
        ),
        click.option(
            "--max-tokens",
            type=click.IntRange(1),
            default=None,
            metavar="N",
            help="Longest answer (default: until the model ends it).",
        ),
    ):
        function = option(function)
    return function
