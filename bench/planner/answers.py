"""What a planner says to a question; unknown stays None, with the reason beside it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Answer:
    """Sizes in bytes. `gpu_bytes` is what the planner says the GPU will hold under its own
    placement; `cpu_expert_layers` and `gpu_layers` are llama.cpp's `--n-cpu-moe` and `-ngl` as the
    planner suggests them. `why` names what is missing and the reason."""

    weights_bytes: int | None = None
    cache_bytes: int | None = None
    compute_bytes: int | None = None
    total_bytes: int | None = None
    fits: bool | None = None
    gpu_bytes: int | None = None
    cpu_expert_layers: int | None = None
    gpu_layers: int | None = None
    decode_tokens_per_second: dict[str, float | None] | None = None
    flags: str | None = None
    note: str | None = None
    failed: str | None = None
    why: dict[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Answer:
        return cls(**said)

    def to_json(self) -> dict[str, Any]:
        """Only what was said."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value not in (None, {})}
