"""What is compared, and how much of it is looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moestro.model import ModelSpec
from moestro.planning.settings import Settings
from moestro.verify.fingerprint import Fingerprint
from moestro.verify.verdict import Compared

Progress = Callable[[str, int, int], None]
"""Told (what is being done, how much of it is done, how much there is; 0 where nobody knows)."""


def reading(progress: Progress, name: str) -> Callable[[int, int], None]:
    """Progress of one file's bytes."""
    return lambda done, total: progress(f"reading {name}", done, total)


@dataclass(frozen=True, slots=True)
class Options:
    """How much is looked at: at most `tokens` of text, `generations` short greedy continuations of
    `generated_tokens` each; `files` also compares what the files themselves hold."""

    tokens: int = 16_384
    generations: int = 16
    generated_tokens: int = 48
    files: bool = True


@dataclass(frozen=True, slots=True)
class Subject:
    """A model on this machine, and how to run it."""

    model: ModelSpec
    settings: Settings

    @property
    def name(self) -> str:
        return Path(self.model.files[0].location).name

    def compared(self, fingerprint: Fingerprint | None) -> Compared:
        return Compared(
            self.name,
            self.model.architecture,
            self.model.quantization,
            self.model.file_bytes,
            fingerprint.digests if fingerprint is not None else (),
        )
