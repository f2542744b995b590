"""Names of split models: `model-00001-of-00003.gguf`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath

_PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)

MAX_PARTS = 4096


@dataclass(frozen=True, slots=True)
class SplitName:
    """A file name taken apart. `number` counts from 1."""

    stem: str
    number: int
    count: int

    def part(self, number: int) -> str:
        return f"{self.stem}-{number:05d}-of-{self.count:05d}.gguf"

    def parts(self) -> list[str]:
        return [self.part(number) for number in range(1, self.count + 1)]


def parse_split_name(file_name: str) -> SplitName | None:
    """None for a file that is not one part of several."""
    match = _PART.fullmatch(file_name)
    if match is None:
        return None
    number, count = int(match["number"]), int(match["count"])
    if not 1 <= number <= count or count > MAX_PARTS:
        return None
    return SplitName(match["stem"], number, count)


def model_name(path: PurePath) -> str:
    """What a model is called after its file: without `.gguf`, without the number of its part."""
    split = parse_split_name(path.name)
    if split is not None:
        return split.stem
    return path.name.removesuffix(".gguf")
