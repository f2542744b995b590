"""Bytes per second, and where the figure comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from moestro.errors import HardwareError
from moestro.hardware.facts import check_order, check_positive

BandwidthSource = Literal["measured", "catalogue", "computed", "assumed", "user"]
SOURCES: tuple[BandwidthSource, ...] = ("measured", "catalogue", "computed", "assumed", "user")

# PCI Express, one lane, one direction: transfers per second × the encoding's payload ÷ 8 bits.
# Generations 1 and 2 encode 8 bits in 10, 3 to 5 encode 128 in 130; 6 sends 242 of 256 bytes.
_LANE_BYTES_PER_SECOND = {
    1: 2.5e9 * 8 / 10 / 8,
    2: 5e9 * 8 / 10 / 8,
    3: 8e9 * 128 / 130 / 8,
    4: 16e9 * 128 / 130 / 8,
    5: 32e9 * 128 / 130 / 8,
    6: 64e9 * 242 / 256 / 8,
}
PCIE_GENERATIONS = tuple(_LANE_BYTES_PER_SECOND)
PCIE_WIDTHS = (1, 2, 4, 8, 12, 16, 32)

CHANNEL_BYTES = 8
"""A memory channel is 64 bits wide; DDR5's two halves of 32 bits count as one."""


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """One figure.

    *measured* is what a program reached: the median, with `low` and `high` the slowest and the
    fastest repetition. *catalogue* and *computed* are the peak that the maker's figures give, and
    *assumed* is that of a usual machine; no program reaches it. *user* is what a machine's
    description says. `detail` tells how it was had: threads, sizes, a date.
    """

    bytes_per_second: float
    source: BandwidthSource
    low: float | None = None
    high: float | None = None
    detail: str | None = None

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise HardwareError(f"“{self.source}” is not a source that a bandwidth can have.")
        check_positive(bandwidth=self.bytes_per_second, low=self.low, high=self.high)
        check_order("The low end", self.low, "the figure", self.bytes_per_second)
        check_order("The figure", self.bytes_per_second, "the high end", self.high)

    @property
    def is_peak(self) -> bool:
        """Whether this is the hardware's limit, not what a program reaches."""
        return self.source in ("catalogue", "computed", "assumed")


def pcie_bandwidth(generation: int, width: int) -> Bandwidth:
    """The peak of a PCI Express link in one direction, before packet headers (some 5 to 15 %)."""
    if generation not in _LANE_BYTES_PER_SECOND or width not in PCIE_WIDTHS:
        raise HardwareError(
            f"There is no PCIe {generation}.0 x{width}.",
            hint="Generations run from 1.0 to 6.0, widths from x1 to x16.",
        )
    rate = _LANE_BYTES_PER_SECOND[generation] * width
    return Bandwidth(rate, "computed", detail=f"PCIe {generation}.0 x{width}")


def memory_bandwidth(megatransfers: int, channels: int) -> Bandwidth:
    """The peak of main memory: transfers per second × 8 bytes × channels."""
    check_positive(memory_speed=megatransfers, channels=channels)
    rate = megatransfers * 1e6 * CHANNEL_BYTES * channels
    return Bandwidth(
        rate, "computed", detail=f"{megatransfers} MT/s × {CHANNEL_BYTES} bytes × {channels}"
    )
