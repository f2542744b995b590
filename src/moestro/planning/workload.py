"""What the model is to be used for."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Workload:
    """A typical request: `prompt_tokens` are read, then `output_tokens` are written, in each of
    `parallel` streams that can reach `context` tokens."""

    context: int
    parallel: int
    prompt_tokens: int
    output_tokens: int

    @property
    def depth(self) -> int:
        """Tokens in the cache, on average, while the answer is written."""
        return min(self.prompt_tokens + self.output_tokens // 2, self.context)

    def to_json(self) -> dict[str, int]:
        return asdict(self)
