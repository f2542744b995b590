"""NVIDIA GPUs: through NVML where its Python binding is installed, else through `nvidia-smi`.

Standard library only at import: the set-up asks for GPUs before anything is installed.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from moestro.findings import Finding, Severity
from moestro.hardware.bandwidth import PCIE_WIDTHS, Bandwidth
from moestro.hardware.gpu import Gpu, Link, Version
from moestro.hardware.tools import run_tool
from moestro.units import MIB

_TIMEOUT_SECONDS = 10.0
_LEAST_MEMORY_BYTES = 256 * MIB
_MOST_MEMORY_BYTES = 16 << 40
# Spark and Jetson: no memory of their own, and they report none.
_SHARES_MEMORY = re.compile(r"\b(GB10|Orin|Thor|Xavier|Jetson|Tegra)\b")
_QUERY = (
    "name,memory.total,memory.free,compute_cap,pcie.link.gen.current,pcie.link.width.current,"
    "pcie.link.gen.max,pcie.link.width.max,display_active"
)
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class NvidiaFound:
    """`cuda` is the newest CUDA release that the driver runs."""

    gpus: tuple[Gpu, ...] = ()
    cuda: Version | None = None
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Raw:
    """What a tool said of one GPU, not yet believed. None where it said nothing."""

    name: str
    total_bytes: int | None = None
    free_bytes: int | None = None
    capability: Version | None = None
    generation: int | None = None
    width: int | None = None
    max_generation: int | None = None
    max_width: int | None = None
    display: bool | None = None
    memory_mhz: int | None = None
    bus_bits: int | None = None


def find_nvidia() -> NvidiaFound:
    """Never raises. NVML first; where it is absent, fails or hangs, `nvidia-smi`; then nothing."""
    found = _ask_nvml()
    if found is not None:
        raws, cuda = found
    else:
        listed = run_tool("nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits")
        raws = parse_nvidia_list(listed or "")
        cuda = parse_cuda_version(run_tool("nvidia-smi") or "") if raws else None
    believed = [believe(raw) for raw in raws]
    return NvidiaFound(
        gpus=tuple(gpu for gpu, _ in believed),
        cuda=cuda,
        findings=tuple(finding for _, findings in believed for finding in findings),
    )


def believe(raw: Raw) -> tuple[Gpu, tuple[Finding, ...]]:
    """The GPU that a tool described. What cannot be true becomes None, with a finding."""
    findings: list[Finding] = []

    def doubt(what: str, said: str) -> None:
        findings.append(
            Finding(
                Severity.WARN,
                "gpu-tool-lies",
                f"{raw.name}: the driver reports an impossible {what}; it is taken as unknown",
                said,
                "Check that the driver is healthy (nvidia-smi), and reboot after an update of it.",
            )
        )

    total_bytes, free_bytes = raw.total_bytes, raw.free_bytes
    if total_bytes is not None and not _LEAST_MEMORY_BYTES <= total_bytes <= _MOST_MEMORY_BYTES:
        doubt("memory size", f"{total_bytes:,} bytes")
        total_bytes = free_bytes = None
    if free_bytes is not None and not 0 <= free_bytes <= (total_bytes or _MOST_MEMORY_BYTES):
        whole = "an unknown size" if total_bytes is None else f"{total_bytes:,}"
        doubt("amount of free memory", f"{free_bytes:,} bytes free of {whole}")
        free_bytes = None
    if total_bytes is None:
        free_bytes = None  # on its own it tells nothing
    gpu = Gpu(
        vendor="nvidia",
        name=raw.name,
        memory_bytes=total_bytes,
        free_bytes=free_bytes,
        capability=raw.capability,
        shared=raw.total_bytes is None and _SHARES_MEMORY.search(raw.name) is not None,
        bandwidth=_own_bandwidth(raw.memory_mhz, raw.bus_bits),
        link=_link(raw),
        display=raw.display,
    )
    return gpu, tuple(findings)


def parse_nvidia_list(text: str) -> tuple[Raw, ...]:
    """GPUs out of `nvidia-smi --query-gpu=… --format=csv,noheader,nounits` (memory in MiB).

    Cards that share the host's memory report `[N/A]` there; a field that an old driver does not
    know is `[Not Supported]`. Lines of other kinds (messages) are none.
    """
    raws = []
    columns = _QUERY.count(",") + 1
    for line in text.splitlines():
        fields = [field.strip() for field in line.rsplit(",", columns - 1)]
        if len(fields) != columns or (capability := _version(fields[3])) is None:
            continue
        total_mib, free_mib = _whole(fields[1]), _whole(fields[2])
        raws.append(
            Raw(
                name=fields[0] or "NVIDIA GPU",
                total_bytes=None if total_mib is None else total_mib * MIB,
                free_bytes=None if free_mib is None else free_mib * MIB,
                capability=capability,
                generation=_whole(fields[4]),
                width=_whole(fields[5]),
                max_generation=_whole(fields[6]),
                max_width=_whole(fields[7]),
                display={"Enabled": True, "Disabled": False}.get(fields[8]),
            )
        )
    return tuple(raws)


def parse_cuda_version(text: str) -> Version | None:
    """The driver's CUDA release out of the table that plain `nvidia-smi` prints."""
    found = re.search(r"CUDA (?:UMD )?Version:\s*(\d+\.\d+)", text)
    return _version(found[1]) if found else None


def read_nvml(nvml: Any) -> tuple[tuple[Raw, ...], Version | None]:
    """GPUs and CUDA release through the module `pynvml`. Raises `nvml.NVMLError`."""
    nvml.nvmlInit()
    try:
        number = nvml.nvmlSystemGetCudaDriverVersion_v2()
        handles = [
            nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())
        ]
        raws = tuple(_read_device(nvml, handle) for handle in handles)
        # 13020 is CUDA 13.2.
        return raws, (number // 1000, number % 1000 // 10) if number > 0 else None
    finally:
        nvml.nvmlShutdown()


def _read_device(nvml: Any, handle: Any) -> Raw:
    def ask(function: str, *arguments: Any) -> Any:
        """None where this card or this driver has no answer."""
        try:
            return getattr(nvml, function)(handle, *arguments)
        except nvml.NVMLError:
            return None

    name = ask("nvmlDeviceGetName")
    memory = ask("nvmlDeviceGetMemoryInfo")
    capability = ask("nvmlDeviceGetCudaComputeCapability")
    display = ask("nvmlDeviceGetDisplayActive")
    return Raw(
        name=(name.decode(errors="replace") if isinstance(name, bytes) else name) or "NVIDIA GPU",
        total_bytes=None if memory is None else int(memory.total),
        free_bytes=None if memory is None else int(memory.free),
        capability=None if capability is None else (int(capability[0]), int(capability[1])),
        generation=ask("nvmlDeviceGetCurrPcieLinkGeneration"),
        width=ask("nvmlDeviceGetCurrPcieLinkWidth"),
        max_generation=ask("nvmlDeviceGetMaxPcieLinkGeneration"),
        max_width=ask("nvmlDeviceGetMaxPcieLinkWidth"),
        display=None if display is None else bool(display),
        memory_mhz=ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_MEM),
        bus_bits=ask("nvmlDeviceGetMemoryBusWidth"),
    )


def _ask_nvml() -> tuple[tuple[Raw, ...], Version | None] | None:
    """None where NVML is absent, fails, or does not answer in time (a GPU off the bus)."""
    try:
        import pynvml
    except ImportError:
        return None

    def ask() -> tuple[tuple[Raw, ...], Version | None] | None:
        try:
            return read_nvml(pynvml)
        except pynvml.NVMLError:
            return None

    return within(_TIMEOUT_SECONDS, ask)


def within(seconds: float, ask: Callable[[], Answer]) -> Answer | None:
    """The answer, or None if it takes too long; the thread that waits for it is left behind."""
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(ask()), daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else None


def _own_bandwidth(memory_mhz: int | None, bus_bits: int | None) -> Bandwidth | None:
    """Two transfers per clock that NVML reports, each as wide as the bus."""
    if not memory_mhz or not bus_bits or memory_mhz < 0 or bus_bits < 0:
        return None
    rate = 2 * memory_mhz * 1e6 * bus_bits / 8
    return Bandwidth(rate, "computed", detail=f"{bus_bits} bits at {memory_mhz} MHz, twice a clock")


def _link(raw: Raw) -> Link | None:
    """None where nothing sensible is known; a GPU on the processor's own fabric has no PCIe."""
    generation, max_generation = (
        value if value is not None and 1 <= value <= 7 else None
        for value in (raw.generation, raw.max_generation)
    )
    width, max_width = (
        value if value in PCIE_WIDTHS else None for value in (raw.width, raw.max_width)
    )
    link = Link(generation, width, max_generation, max_width)
    return link.with_peak() if link != Link() else None


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?\d{1,18}", text, re.ASCII) else None


def _version(text: str) -> Version | None:
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None
