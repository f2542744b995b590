"""Several memory nodes: does the kernel move pages about, and does the model fit one of them?

llama.cpp itself warns of `numa_balancing` (`ggml_numa_init` in `ggml-cpu.c`, release b11549).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from moestro.doctor.case import Case
from moestro.doctor.check import Check, ok
from moestro.doctor.host import Host
from moestro.findings import Finding, Severity
from moestro.planning.placement import HOST
from moestro.units import GIB, format_bytes

_BALANCING = "proc/sys/kernel/numa_balancing"
_RECLAIM = "proc/sys/vm/zone_reclaim_mode"

_LARGE_BYTES, _LARGE_SHARE = 1 * GIB, 0.1
"""Of weights that the processor reads, and of all of them. The kernel's own default is to move
pages, so where the GPUs hold the model it is no matter."""


def _run(case: Case) -> Iterator[Finding]:
    nodes = case.inventory.cpu.numa_nodes
    if nodes is None:
        return
    if nodes == 1:
        yield ok("numa", "All memory belongs to one node")
        return
    host = case.host
    said = "; ".join(f"{path.rpartition('/')[2]} is {value}" for path in (_BALANCING, _RECLAIM)
                     if (value := host.number(path)) is not None)  # fmt: skip
    matters = _matters(case)
    troubles = [*(_kernel(host, matters) if matters else ()), *_split(case)]
    yield from troubles
    if not troubles:
        if case.plan is not None:
            on_host = format_bytes(case.plan.ledger.device(HOST).weights_bytes)
            said = "; ".join(filter(None, (f"{on_host} of weights on the host", said)))
        yield ok("numa", f"Nothing is in the way of {nodes} memory nodes", said or None)


def _matters(case: Case) -> Severity | None:
    """How much the kernel's moving of pages matters: little without a plan, which may be for the
    GPU, and nothing where a plan leaves the processor hardly any weights."""
    if case.plan is None:
        return Severity.INFO
    on_host = case.plan.ledger.device(HOST).weights_bytes
    large = on_host > _LARGE_BYTES and on_host > _LARGE_SHARE * case.plan.model.tensor_bytes
    return Severity.WARN if large else None


def _kernel(host: Host, severity: Severity) -> Iterator[Finding]:
    if host.number(_BALANCING):
        yield Finding(
            severity,
            "numa-balancing-on",
            "The kernel moves pages between memory nodes while the model runs",
            "kernel.numa_balancing is on; the engine's threads read all weights from everywhere, "
            "so that the moving never ends",
            "sudo sysctl kernel.numa_balancing=0, and write it to /etc/sysctl.d to keep it.",
        )
    if host.number(_RECLAIM):
        yield Finding(
            severity,
            "numa-zone-reclaim",
            "The kernel drops cached pages of the model rather than use another node's memory",
            f"vm.zone_reclaim_mode is {host.number(_RECLAIM)}",
            "sudo sysctl vm.zone_reclaim_mode=0, and write it to /etc/sysctl.d to keep it.",
        )


def _split(case: Case) -> Iterator[Finding]:
    if case.plan is None:
        return
    rooms = _free_bytes(case.host)
    needed = case.plan.ledger.resident_bytes(HOST)
    if len(rooms) > 1 and needed > max(rooms):
        yield Finding(
            Severity.INFO,
            "numa-split",
            "The plan takes more host memory than one memory node has free",
            f"{format_bytes(needed)}; free: {', '.join(map(format_bytes, rooms))}",
            "Spread it evenly, so that all channels are read: start moestro with "
            "numactl --interleave=all in front.",
        )


def _free_bytes(host: Host) -> list[int]:
    """Of each node: what is free, and what caches hold that can be dropped."""
    rooms = []
    for path in host.paths("sys/devices/system/node/node*/meminfo"):
        if host.text(path.replace("meminfo", "cpulist")) == "":
            continue  # no processors: memory of a card or of an expander
        text = host.text(path) or ""
        fields = dict(re.findall(r"^Node \d+ (\S+):\s+(\d{1,15}) kB$", text, re.M))
        if int(fields.get("MemTotal", 0)):  # the other way round, processors without memory
            cached = int(fields.get("FilePages", 0)) - int(fields.get("Shmem", 0))
            rooms.append((int(fields.get("MemFree", 0)) + max(cached, 0)) * 1024)
    return rooms


CHECK = Check("numa", "machine", "Do memory nodes stand in the way of the model?", _run, quick=True)
