"""What an engine's dry run says, in words that any engine could use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """What one context takes on one device: `CPU`, `GPU0`, ….

    `weights_repacked_bytes` is the part of `weights_bytes` that the engine keeps in a layout of its
    own for this CPU: copies, in memory that cannot be dropped, while other weights are the file's
    own pages. A draft context shares the weights of the trunk; its own are 0.
    """

    device: str
    weights_bytes: int
    cache_bytes: int
    compute_bytes: int
    weights_repacked_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.cache_bytes + self.compute_bytes


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """The engine's plan for one model with one set of settings, to the byte.

    The host comes first. `draft` is the second context of multi-token prediction. `context` counts
    the cells of the whole cache. `graph_nodes` and `graph_splits` are those of a prompt's batch.
    """

    devices: tuple[DeviceMemory, ...]
    draft: tuple[DeviceMemory, ...] = ()
    context: int | None = None
    flash_attention: bool | None = None
    graph_nodes: int | None = None
    graph_splits: int | None = None
