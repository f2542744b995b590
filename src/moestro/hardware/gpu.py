"""A GPU and the link it hangs on.

Standard library only: the set-up asks for GPUs before anything is installed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from moestro.errors import HardwareError
from moestro.hardware.bandwidth import PCIE_GENERATIONS, PCIE_WIDTHS, Bandwidth, pcie_bandwidth
from moestro.hardware.facts import check_not_negative, check_order, check_positive

Vendor = Literal["nvidia", "amd", "apple"]
VENDORS: tuple[Vendor, ...] = ("nvidia", "amd", "apple")
Version = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Link:
    """PCI Express between the host and a GPU.

    `generation` and `width` are what the link runs at now; an idle GPU drops to generation 1 to
    save power and comes back under load. `max_generation` and `max_width` are what card and slot
    can do together. `bandwidth` is host to device, one direction.
    """

    generation: int | None = None
    width: int | None = None
    max_generation: int | None = None
    max_width: int | None = None
    bandwidth: Bandwidth | None = None

    def __post_init__(self) -> None:
        for generation in (self.generation, self.max_generation):
            if generation is not None and not 1 <= generation <= 7:
                raise HardwareError(f"There is no PCIe generation {generation}.")
        for width in (self.width, self.max_width):
            if width is not None and width not in PCIE_WIDTHS:
                raise HardwareError(f"There is no PCIe link of {width} lanes.")

    @property
    def loaded_generation(self) -> int | None:
        """The generation under load."""
        return self.max_generation or self.generation

    @property
    def loaded_width(self) -> int | None:
        """The lanes under load; width does not change with load on a desktop, so what it is now
        tells of a slot that has fewer lanes than the card."""
        return self.width or self.max_width

    def with_peak(self) -> Link:
        """The link with the bandwidth that generation and width give, where that is unknown."""
        generation, width = self.loaded_generation, self.loaded_width
        if self.bandwidth is not None or generation not in PCIE_GENERATIONS or width is None:
            return self
        return replace(self, bandwidth=pcie_bandwidth(generation, width))


@dataclass(frozen=True, slots=True)
class Gpu:
    """`capability` is NVIDIA's compute capability, `target` AMD's instruction set (`gfx1100`).

    `memory_bytes` is its own memory as the driver reports it. Where the GPU shares the host's
    memory (`shared`), it is the part of that memory that the GPU may use. `free_bytes` is what is
    free of it now: a display and other programs take their share. `tflops_f16` counts dense
    multiply-adds of halves, summed in single precision, as two operations each (10**12 per second).
    `display` tells whether a screen hangs on it.
    """

    vendor: Vendor
    name: str
    memory_bytes: int | None = None
    capability: Version | None = None
    target: str | None = None
    free_bytes: int | None = None
    shared: bool = False
    bandwidth: Bandwidth | None = None
    link: Link | None = None
    tflops_f16: float | None = None
    display: bool | None = None

    def __post_init__(self) -> None:
        if self.vendor not in VENDORS:
            raise HardwareError(f"“{self.vendor}” is not a vendor of GPUs known here.")
        if not self.name:
            raise HardwareError("A GPU needs a name.")
        check_positive(memory=self.memory_bytes, tflops_f16=self.tflops_f16)
        check_not_negative(free_memory=self.free_bytes)
        check_order(
            f"{self.name}: free memory", self.free_bytes, "its whole memory", self.memory_bytes
        )
