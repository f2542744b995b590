"""What every target has: a name, and a function from a deployment to texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from moestro.export.deployment import Deployment


@dataclass(frozen=True, slots=True)
class File:
    """`name` is what the file is usually called there; `text` ends with a line break."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Unexpressed:
    """A setting of the plan that the target has no words for, or other ones: what happens instead,
    and what to do about it, in a sentence."""

    setting: str
    planned: str
    instead: str


@dataclass(frozen=True, slots=True)
class Exported:
    """`files` in the order to read them; `use` are commands or steps that put them to use."""

    files: tuple[File, ...]
    unexpressed: tuple[Unexpressed, ...] = ()
    use: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """`name` is what `--to` takes; `title` the tool and the form, for people."""

    name: str
    title: str
    export: Callable[[Deployment], Exported]
