"""Does the plan fit into the memory of each device, with some to spare?

Host memory is short in two ways. Weights lie in the pages of the model's files: where these do not
fit, the engine starts, and then reads from disk for every token. Everything else is memory of its
own: where that does not fit, the kernel ends the process.
"""

from __future__ import annotations

from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok, unknown
from moestro.doctor.host_need import HostNeed
from moestro.findings import Finding, Severity
from moestro.model import Role
from moestro.planning import Plan
from moestro.planning.concerns import MEMORY_SHORT
from moestro.planning.memory import DeviceLedger
from moestro.planning.placement import HOST, gpu_capacities, gpu_name, is_routed_expert, place
from moestro.units import MIB, format_bytes

TIGHT_HOST_SHARE = 0.02
"""Of the host's memory beyond the plan's own margin: other programs there grow."""

TIGHT_DISPLAY_BYTES = 256 * MIB
"""The same on a card with a screen, whose windows come and go with hundreds of MiB."""

TIGHT_GPU_BYTES = 64 * MIB
"""On any other card. The margin is there for pools and fragmentation, so little beyond it is
enough; below this, the error of the driver's share (±250 MiB) eats all of it."""

_FIX = "Lower --context or --parallel, or take a smaller file; moestro plan MODEL shows what fits."


def run(case: Case) -> Iterator[Finding]:
    plan = case.plan
    if plan is None:
        return
    short = list(_short(plan))
    yield from short
    missing = list(_unknown(plan))
    yield from missing
    if not short and not missing:
        tight = list(_tight(plan))
        yield from tight or [ok("plan-fits", "The plan fits into memory", _sums(plan))]
    yield from _experts_on_host(plan)


def _short(plan: Plan) -> Iterator[Finding]:
    if plan.hardware.memory.unified:
        shared = plan.hardware.memory.available_bytes
        lacks = sum(device.total_bytes for device in plan.ledger.devices) - shared
        if lacks > 0:
            yield _memory_short(
                f"host and GPU share {format_bytes(shared)}; the plan takes "
                f"{format_bytes(lacks)} more"
            )
        elif plan.fits is False:
            yield from _told(plan)
        return
    host = plan.ledger.device(HOST)
    need = HostNeed.of(plan)
    capacity = host.capacity_bytes
    paged = (
        capacity is not None
        and need.resident_bytes <= capacity < need.resident_bytes + need.mapped_bytes
    )
    if paged:
        assert capacity is not None
        yield Finding(
            Severity.FAIL,
            "weights-beyond-memory",
            "The weights do not fit into host memory and would be read from disk again and again",
            f"{format_bytes(need.mapped_bytes)} of weights beside "
            f"{format_bytes(need.resident_bytes)} of the engine's own, "
            f"{format_bytes(capacity)} can be had",
            "Take a smaller quantization or more memory: a token takes as long as the disk needs "
            "for its experts.",
        )
    over = [_over(d) for d in plan.ledger.devices if not (paged and d is host)]
    lacking = "; ".join(filter(None, over))
    if lacking:
        yield _memory_short(lacking)
    elif plan.fits is False and not paged:
        yield from _told(plan)


def _told(plan: Plan) -> Iterator[Finding]:
    """The engine's dry run of other settings found more than the ledger's formulae do."""
    said = next((finding for finding in plan.findings if finding.code == MEMORY_SHORT), None)
    yield _memory_short((said.evidence if said is not None else None) or _sums(plan))


def _memory_short(evidence: str) -> Finding:
    return Finding(Severity.FAIL, MEMORY_SHORT, "The plan does not fit into memory", evidence, _FIX)


def _over(device: DeviceLedger) -> str | None:
    if device.capacity_bytes is None or device.total_bytes <= device.capacity_bytes:
        return None
    return (
        f"{device.device} needs {format_bytes(device.total_bytes)} of "
        f"{format_bytes(device.capacity_bytes)}"
    )


def _unknown(plan: Plan) -> Iterator[Finding]:
    if not plan.ledger.cache_known:
        yield unknown(
            "memory-unknown",
            "The memory for the context is not known",
            f"how {plan.model.architecture} keeps its context is not known here",
            "Run moestro plan on the file itself: the engine that reads it tells its buffers.",
        )
    for device in plan.ledger.devices:
        if device.capacity_bytes is None and device.weights_bytes + device.cache_bytes:
            yield unknown(
                "memory-unknown",
                f"The memory of {device.device} is not known",
                f"the plan takes {format_bytes(device.total_bytes)} there",
                "Let the driver's tool (nvidia-smi, rocm-smi) tell it to this user, or describe "
                "the machine in a file for moestro plan --hardware.",
            )


def _tight(plan: Plan) -> Iterator[Finding]:
    """Only a plan that leaves its own margin free comes here."""
    found = []
    machine = plan.hardware
    for device in plan.ledger.devices:
        if device.capacity_bytes is None or not device.weights_bytes + device.cache_bytes:
            continue
        left = device.capacity_bytes - device.total_bytes
        if device.device == HOST:
            tight = int(machine.memory.usable_total_bytes * TIGHT_HOST_SHARE)
        else:
            shown = next(
                (g.display for n, g in enumerate(machine.gpus) if gpu_name(n) == device.device),
                None,
            )
            tight = TIGHT_DISPLAY_BYTES if shown else TIGHT_GPU_BYTES
        if left < tight:
            found.append(
                f"{device.device} has {format_bytes(left)} left beyond the margin of "
                f"{format_bytes(device.kind_bytes('margin'))}"
            )
    if found:
        yield Finding(
            Severity.WARN,
            "memory-tight",
            "The plan fits, and hardly anything more",
            "; ".join(found),
            "Lower --context or --parallel a little, or close what else uses this memory.",
        )


def _experts_on_host(plan: Plan) -> Iterator[Finding]:
    """A host without a GPU has all of them there, which nobody needs to be told."""
    if not plan.hardware.gpus:
        return
    placement = place(plan.model, plan.settings, gpu_capacities(plan.hardware))
    blocks: set[int] = set()
    size_bytes = 0
    for tensor in plan.model.tensors:
        if is_routed_expert(tensor) and tensor.layer is not None:
            idle = tensor.role is Role.MTP and not plan.settings.mtp_depth
            if placement.device_of(tensor) == HOST and not idle:
                blocks.add(tensor.layer)
                size_bytes += tensor.size_bytes
    if blocks:
        layers = f"{len(blocks)} layer{'s' if len(blocks) > 1 else ''}"
        yield Finding(
            Severity.INFO,
            "experts-on-host",
            "Some experts stay in host memory; the processor computes them while decoding",
            f"{format_bytes(size_bytes)} of experts in {layers}; the speed of host memory then "
            "bounds the tokens per second",
            "Take a smaller quantization, a shorter --context or --cache-type q8_0 to have more "
            "of them on the GPU.",
        )


def _sums(plan: Plan) -> str:
    return "; ".join(
        f"{device.device} {format_bytes(device.total_bytes)} of "
        f"{format_bytes(device.capacity_bytes)}"
        for device in plan.ledger.devices
    )


CHECK = Check(
    "plan-fits", "memory", "Does the plan fit into the memory of each device?", run, quick=True
)
