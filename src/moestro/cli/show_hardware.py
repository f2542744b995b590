"""What `hardware` prints for a person."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from moestro.cli.anatomy import finding_table
from moestro.hardware import Bandwidth, Cpu, Disk, Gpu, Inventory, Link, Memory
from moestro.hardware.catalogue import MachineRow
from moestro.units import format_bandwidth, format_bytes

if TYPE_CHECKING:
    from moestro.hardware.catalogue import Row

UNKNOWN = "unknown"
# Of several of one kind, the newest says it all.
_IMPLIED = {
    "SSE4.2": "AVX",
    "AVX": "AVX2",
    "F16C": "AVX2",
    "FMA": "AVX2",
    "BMI2": "AVX2",
    "AVX-512-VBMI": "AVX-512",
    "AMX-INT8": "AMX",
    "AMX-BF16": "AMX",
    "SVE": "SVE2",
}


def show_inventory(inventory: Inventory, console: Console) -> None:
    """The machine in a dozen lines; what is not known is printed as unknown."""
    console.print(_title(inventory))
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(inventory):
        table.add_row(escape(name), escape(_printable(value)))
    console.print(table)
    for finding in inventory.findings:
        console.print()
        console.print(finding_table(finding))
    if inventory.source == "this machine" and not _measured(inventory):
        console.print()
        console.print(
            Text("hint: moestro hardware --measure finds out how fast it really is.", "dim")
        )


def show_catalogue(rows: Iterable[Row], console: Console) -> None:
    """One line a machine, with the maker's peaks; long names are cut at the edge."""
    lines = [("name", "memory", "bandwidth", "f16", "what it is")]
    for row in rows:
        whole = isinstance(row, MachineRow)
        size_bytes = row.memory_bytes if isinstance(row, MachineRow) else row.gpu.memory_bytes
        peak = row.gpu.bandwidth
        tflops = row.gpu.tflops_f16
        lines.append(
            (
                row.key,
                format_bytes(size_bytes),
                format_bandwidth(peak.bytes_per_second if peak else None),
                f"{tflops:.0f} TFLOPS" if tflops else "?",
                f"{row.name}, whole machine" if whole else row.name,
            )
        )
    for number, (key, size, rate, compute, name) in enumerate(lines):
        line = Text(f"{key:<17} {size:>8} {rate:>9} {compute:>11}  {name}")
        line.truncate(console.width, overflow="ellipsis")
        line.stylize("bold" if number == 0 else "")
        console.print(line, soft_wrap=True)
    console.print()
    console.print(
        "GPUs stand in an assumed host; name yours: moestro hardware --hardware\n"
        '"rtx-4090, 64 GiB DDR5-5600 dual channel, PCIe 4.0 x16, 8 cores"'
    )


def _title(inventory: Inventory) -> Text:
    name = inventory.name or inventory.cpu.model or inventory.cpu.architecture
    where = {
        "this machine": "this machine",
        "catalogue": "from the catalogue, not measured",
        "file": "from a file, not measured",
    }[inventory.source]
    words = f"{where} · {inventory.system} {inventory.cpu.architecture}"
    return Text.assemble((_printable(name), "bold"), "  ", (words, "dim"))


def _rows(inventory: Inventory) -> list[tuple[str, str]]:
    rows = [
        ("processor", _processor(inventory.cpu, named=inventory.name is not None)),
        ("memory", _memory(inventory.memory)),
        ("", _memory_speed(inventory.memory)),
    ]
    for index, gpu in enumerate(inventory.gpus):
        label = "GPU" if len(inventory.gpus) == 1 else f"GPU {index}"
        rows += [(label, _gpu(gpu)), ("", _gpu_speed(gpu))]
        if not gpu.shared:
            rows.append(("", f"link {_link(gpu.link)}"))
    if not inventory.gpus:
        rows.append(("GPU", "none" if inventory.source != "this machine" else "none found"))
    for disk in inventory.disks:
        rows += [("disk", _disk(disk)), *(("", line) for line in _disk_speed(disk))]
    if not inventory.disks:
        rows.append(("disk", UNKNOWN))
    return rows


def _processor(cpu: Cpu, *, named: bool) -> str:
    words = []
    if named and cpu.model:
        words.append(cpu.model)
    usable, physical = cpu.usable_cores, cpu.physical_cores
    if physical is None or physical == usable:
        words.append(f"{usable} core{'' if usable == 1 else 's'}")
    else:
        words.append(f"{usable} of {physical} cores may be used")
    if cpu.numa_nodes is not None and cpu.numa_nodes > 1:
        words.append(f"{cpu.numa_nodes} NUMA nodes")
    has = set(cpu.instruction_sets)
    words += [name for name in cpu.instruction_sets if _IMPLIED.get(name) not in has]
    if not has:
        words.append(f"instruction sets {UNKNOWN}")
    return ", ".join(words)


def _memory(memory: Memory) -> str:
    words = [format_bytes(memory.total_bytes)]
    if memory.kind:
        channels = f" on {memory.channels} channels" if memory.channels else ""
        words[0] += f" {memory.kind}{channels}"
    words.append(f"{format_bytes(memory.available_bytes)} free")
    if memory.limit_bytes is not None:
        words.append(f"limited to {format_bytes(memory.limit_bytes)}")
    if memory.unified:
        words.append("shared with the GPU")
    swap_bytes = memory.swap_total_bytes
    if swap_bytes == 0:
        words.append("no swap")
    elif swap_bytes is not None:
        free = format_bytes(memory.swap_free_bytes)
        words.append(f"swap {format_bytes(swap_bytes)}, {free} free")
    return ", ".join(words)


def _memory_speed(memory: Memory) -> str:
    return f"read {_figure(memory.bandwidth)}"


def _gpu(gpu: Gpu) -> str:
    size = format_bytes(gpu.memory_bytes) if gpu.memory_bytes is not None else f"memory {UNKNOWN}"
    words = [gpu.name, f"may hold {size} of it" if gpu.shared else size]
    if gpu.free_bytes is not None:
        words.append(f"{format_bytes(gpu.free_bytes)} free")
    if gpu.capability is not None:
        words.append("compute {}.{}".format(*gpu.capability))
    if gpu.target is not None:
        words.append(gpu.target)
    if gpu.display:
        words.append("a screen hangs on it")
    return ", ".join(words)


def _gpu_speed(gpu: Gpu) -> str:
    tflops = f"{gpu.tflops_f16:g} TFLOPS f16" if gpu.tflops_f16 else f"TFLOPS {UNKNOWN}"
    return f"memory {_figure(gpu.bandwidth)}; {tflops}"


def _link(link: Link | None) -> str:
    if link is None:
        return UNKNOWN
    generation, width = link.loaded_generation, link.loaded_width
    words = f"PCIe {f'{generation}.0' if generation else '?'} x{width or '?'}"
    if link.max_width and width and width < link.max_width:
        words += f" (of x{link.max_width})"
    return f"{words}, {_figure(link.bandwidth)}"


def _disk(disk: Disk) -> str:
    words = [f"{disk.name} on {disk.mount}" if disk.mount else disk.name]
    if disk.kind != disk.name:
        words.append(disk.kind.upper() if disk.kind else f"kind {UNKNOWN}")
    if disk.free_bytes is not None:
        words.append(f"{format_bytes(disk.free_bytes)} free")
    return ", ".join(words)


def _disk_speed(disk: Disk) -> list[str]:
    if disk.sequential is None and disk.random is None:
        return [f"read {UNKNOWN}"]
    return [f"read {_figure(disk.sequential)}", f"at random {_figure(disk.random)}"]


def _figure(bandwidth: Bandwidth | None) -> str:
    """`16.5 GB/s (15.6 to 17.4), measured 2026-11-22`, `1008 GB/s peak`, `unknown`."""
    if bandwidth is None:
        return UNKNOWN
    text = format_bandwidth(bandwidth.bytes_per_second)
    match bandwidth.source:
        case "measured":
            if bandwidth.low is not None and bandwidth.high is not None:
                ends = [format_bandwidth(end) for end in (bandwidth.low, bandwidth.high)]
                if all(end.endswith(text[-4:]) for end in ends):
                    ends = [end[:-5] for end in ends]
                text += f" ({' to '.join(ends)})"
            when = (bandwidth.detail or "").rpartition(", ")[2]
            return f"{text}, measured {when}".rstrip()
        case "catalogue" | "computed":
            return f"{text} peak"
        case "assumed":
            return f"{text} peak, assumed"
        case _:
            return text


def _measured(inventory: Inventory) -> bool:
    return inventory.memory.bandwidth is not None and (
        inventory.memory.bandwidth.source == "measured"
    )


def _printable(text: str) -> str:
    """Names come from drivers and files; nothing in them may steer a terminal."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
