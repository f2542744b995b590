"""What a supervisor grants a server: memory and the time to start, from the plan."""

from __future__ import annotations

from moestro.export.deployment import Deployment
from moestro.units import GIB, MIB

_MOST_HEADROOM_BYTES = 8 * GIB

_SLOWEST_READ = 100_000_000
"""Bytes per second. Hard disks read 150 MB/s and more, volumes on a network often less."""
_WARM_UP_SECONDS = 120


def memory_limit_bytes(deployment: Deployment) -> int | None:
    """The host memory above which something has grown that the plan knows nothing of, in whole MiB.

    A tenth of the plan, 8 GiB at most, and 1 GiB above it. None where the plan does not know all of
    its memory. A GPU that works in the host's memory takes its part from there too.
    """
    if deployment.plan.fits is None:
        return None
    shared = (
        deployment.memory[f"GPU{number}"].total_bytes
        for number, gpu in enumerate(deployment.plan.hardware.gpus)
        if gpu.shared
    )
    planned = deployment.host_bytes + sum(shared)
    return _whole(planned + min(planned // 10, _MOST_HEADROOM_BYTES) + GIB, MIB)


def start_seconds(deployment: Deployment) -> int:
    """How long reading the model may take, in whole minutes."""
    read = deployment.plan.model.tensor_bytes // _SLOWEST_READ
    return _whole(read + _WARM_UP_SECONDS, 60)


def _whole(amount: int, unit: int) -> int:
    return -(-amount // unit) * unit
