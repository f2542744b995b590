"""What a plan takes of the host's memory, by what the kernel can do about it when memory is short.

The engine maps the model's files and locks nothing: pages of plain weights are dropped and read
again from disk, never swapped. Everything else (caches, compute buffers, repacked weights) is
memory of its own, which only swap can take.
"""

from __future__ import annotations

from dataclasses import dataclass

from moestro.hardware import Inventory
from moestro.planning import Plan
from moestro.planning.placement import HOST

MAPPED = "weights"
"""The ledger's kind of line for weights that lie in the files' own pages."""


@dataclass(frozen=True, slots=True)
class HostNeed:
    """`resident_bytes` is memory of the process's own that is taken from the start, `bound_bytes`
    what caches may come to hold beyond it. `file_bytes` is the length of the model's files, which
    are mapped whole while they load; None where one is not known. `margin_bytes` is left free."""

    mapped_bytes: int
    resident_bytes: int
    bound_bytes: int
    margin_bytes: int
    file_bytes: int | None

    @property
    def anonymous_bytes(self) -> int:
        """What swap, overcommit and core dumps are about."""
        return self.resident_bytes + self.bound_bytes

    @property
    def total_bytes(self) -> int:
        """The plan's own sum for the host."""
        return self.mapped_bytes + self.anonymous_bytes + self.margin_bytes

    @staticmethod
    def of(plan: Plan) -> HostNeed:
        lines = plan.ledger.device(HOST).lines
        own = [line for line in lines if line.kind not in (MAPPED, "margin")]
        files = [file.size_bytes for file in plan.model.files]
        known = [size for size in files if size is not None]
        return HostNeed(
            mapped_bytes=sum(line.size_bytes for line in lines if line.kind == MAPPED),
            resident_bytes=sum(line.size_bytes for line in own if line.resident),
            bound_bytes=sum(line.size_bytes for line in own if not line.resident),
            margin_bytes=sum(line.size_bytes for line in lines if line.kind == "margin"),
            file_bytes=sum(known) if len(known) == len(files) else None,
        )


def left_bytes(plan: Plan, machine: Inventory) -> int:
    """What the plan leaves of the host memory that can be had now; negative if it takes more."""
    device = plan.ledger.device(HOST)
    capacity = device.capacity_bytes
    if capacity is None:
        capacity = machine.memory.available_bytes
    return capacity - device.total_bytes
