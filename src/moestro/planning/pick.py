"""Which of a repository's files fits this machine best.

Quality rises with bits per weight, steeply below 4 and hardly above 6; speed falls with bytes. So:

1. If files of 4 bits or more fit with every tensor on the GPUs, the largest of them up to Q6_K's
   6.6 bits: the GPU is fast enough, and more bits buy nothing that a user sees.
2. Else the fastest of 4 bits or more that fits, by forecast: where the host computes, some types
   take longer than the bytes that they save. Without a forecast the smallest: bytes are time.
3. Else the largest that fits, with a warning: below 4 bits a mixture of experts loses first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LOW_BITS = 4.0
ENOUGH_BITS = 6.7
"""Q6_K's 6.5625, and what its recipes add with a few tensors of more bits."""


@dataclass(frozen=True, slots=True)
class Option:
    """A file as planned: `on_gpus` if no weights but the embedding table are in host memory;
    `request_seconds` of a typical request, where that can be forecast."""

    label: str
    size_bytes: int
    bits_per_weight: float
    fits: bool
    on_gpus: bool
    request_seconds: float | None = None


def pick(options: Sequence[Option]) -> tuple[Option, str] | None:
    """The file to take and why, or None if none fits."""
    fitting = sorted((o for o in options if o.fits), key=lambda option: option.size_bytes)
    if not fitting:
        return None
    good = [option for option in fitting if option.bits_per_weight >= LOW_BITS]
    on_gpus = [o for o in good if o.on_gpus and o.bits_per_weight <= ENOUGH_BITS]
    if on_gpus:
        best = on_gpus[-1]
        if any(option.size_bytes > best.size_bytes for option in options):
            return (
                best,
                f"the largest up to Q6_K's 6.6 bits that fits the GPUs whole ({_bits(best)})",
            )
        return best, f"it fits the GPUs whole ({_bits(best)})"
    if good:
        times = [option.request_seconds for option in good]
        if None in times:
            best = good[0]
            return best, f"the smallest of 4 bits or more: fewer bytes, faster ({_bits(best)})"
        best = min(good, key=lambda option: option.request_seconds or 0.0)
        return best, f"by forecast the fastest of 4 bits or more that fits ({_bits(best)})"
    best = fitting[-1]
    return best, f"the largest that fits; none of 4 bits or more does ({_bits(best)})"


def _bits(option: Option) -> str:
    return f"{option.bits_per_weight:.1f} bits per weight"
