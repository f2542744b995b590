"""Memory to the byte: the planner's formulae against the engine's own dry run, on a grid.

    python -m bench.planner.memory [--only NAME…] [--output results/memory.json]

Shapes of published models (`tests/shapes`, headers only), each with every setting of `GRID` on a
host without GPUs, and with every setting of `PLACED` on GPUs that are not there. For each case:

- weights and cache by formula against what the engine reports, on every device: equal or not;
- the compute buffers by formula, and the total, as an error relative to the engine's;
- the total is weights, cache, compute buffers and the draft context: what the engine reports.
  Lines that are the same either way (process, outputs, bounds) would only dilute the errors.

The two reference rows of llama.cpp's own allocator (`REFERENCES`) are computed with them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tests.shapes import PUBLISHED, Shape, mxfp4, q4_k_m, write_header
from tests.shapes.shape import TypeChooser

from bench.planner.model_files import q4_k_m_of
from moestro.engine.llama_cpp.dry_run import DryRun, EngineMemory, VirtualDevice
from moestro.errors import EngineStartFailed
from moestro.hardware import Inventory
from moestro.hardware.cpu import Cpu
from moestro.hardware.gpu import Gpu
from moestro.hardware.memory import Memory
from moestro.hardware.this_machine import this_inventory
from moestro.model import ModelSpec, read_model
from moestro.planning.memory import Ledger, ledger
from moestro.planning.placement import HOST, place
from moestro.planning.settings import CacheType, Settings
from moestro.units import GIB, MIB

RESULTS = Path(__file__).parent / "results"
BASE = Settings(context=8192, parallel=1, threads=2)


def grid() -> tuple[Settings, ...]:
    """On the host: what decides its memory, each in several steps."""
    contexts = [replace(BASE, context=c) for c in (2048, 4096, 16384, 32768, 131072, 262144)]
    streams = [replace(BASE, context=4096, parallel=p) for p in (2, 4, 8, 16)]
    ubatches = [replace(BASE, ubatch=u) for u in (128, 256, 1024, 2048)]
    kinds: list[tuple[CacheType, CacheType]] = [
        ("q8_0", "q8_0"),
        ("q4_0", "q4_0"),
        ("q8_0", "q4_0"),
    ]
    types = [
        replace(BASE, cache_type_k=k, cache_type_v=v, context=c)
        for c in (8192, 65536)
        for k, v in kinds
    ]
    slow = [
        replace(BASE, flash_attention="off", context=c, parallel=p, ubatch=u)
        for c, p, u in ((2048, 1, 512), (8192, 4, 128), (32768, 1, 2048), (131072, 1, 512))
    ]
    odd = [
        replace(BASE, context=1000, parallel=3),
        replace(BASE, parallel=4, unified=True),
        replace(BASE, context=65536, parallel=8, ubatch=1024, cache_type_k="q8_0",
                cache_type_v="q8_0"),
    ]  # fmt: skip
    drafts = [
        replace(BASE, mtp_depth=d, parallel=p, ubatch=u, context=c)
        for d, p, u, c in ((1, 1, 512, 8192), (3, 1, 128, 8192), (2, 4, 512, 4096),
                           (3, 16, 512, 4096), (1, 2, 2048, 65536))
    ]  # fmt: skip
    return (BASE, *contexts, *streams, *ubatches, *types, *slow, *odd, *drafts)


def types_of(shape: Shape) -> TypeChooser:
    """As published: gpt-oss in MXFP4, the rest as llama.cpp's quantizer makes Q4_K_M of it."""
    if shape.architecture == "gpt-oss":
        return mxfp4
    # The quantizer's rules do not know the hash tables of DeepSeek-V4.
    return q4_k_m if shape.architecture == "deepseek4" else q4_k_m_of(shape)


@dataclass(frozen=True, slots=True)
class Placed:
    """Settings on GPUs with so many GiB free each."""

    gpus_gib: tuple[int, ...]
    settings: Settings


def placed() -> tuple[Placed, ...]:
    every = (
        BASE,
        replace(BASE, context=32768, parallel=4, cache_type_k="q8_0", cache_type_v="q8_0"),
        replace(BASE, cpu_expert_layers=9999),
        replace(BASE, cpu_expert_layers=7, ubatch=2048),
        replace(BASE, gpu_layers=10),
        replace(BASE, cache_on_host=True),
        replace(BASE, cpu_expert_layers=20, expert_cache_bytes=3 * GIB),
        replace(BASE, mtp_depth=2, cpu_expert_layers=9999),
    )
    return tuple(
        Placed(gpus, settings) for gpus in ((24,), (24, 12), (48, 24, 24)) for settings in every
    )


@dataclass(frozen=True, slots=True)
class Reference:
    """A row of llama.cpp's own allocator: f16 cache, context 8192, one stream, MiB rounded. Its
    tool plans logits for every token of a batch; a server has one row for each stream."""

    model: str
    weights_mib: int
    cache_mib: int
    compute_mib: int
    ubatch: int = 512
    cache_type: CacheType = "f16"


REFERENCES = (
    Reference("Qwen3-30B-A3B", 17691, 768, 324),
    Reference("Qwen3-30B-A3B", 17691, 408, 324, cache_type="q8_0"),
    Reference("Qwen3-30B-A3B", 17691, 768, 1299, ubatch=2048),
    Reference("Mixtral-8x7B", 27129, 1024, 216),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One case: formula against engine. `exact` says weights and cache agree on every device."""

    model: str
    architecture: str
    gpus_gib: tuple[int, ...]
    settings: dict[str, Any]
    weights_bytes: int
    weights_off_bytes: int
    cache_bytes: int
    cache_off_bytes: int
    compute_bytes: int
    compute_formula_bytes: int
    total_bytes: int
    total_formula_bytes: int
    worst_device_error: float

    @property
    def exact(self) -> bool:
        return not self.weights_off_bytes and not self.cache_off_bytes

    @property
    def total_error(self) -> float:
        return self.total_formula_bytes / self.total_bytes - 1

    @property
    def compute_error(self) -> float:
        return self.compute_formula_bytes / self.compute_bytes - 1


def machine(gpus_gib: Sequence[int]) -> Inventory:
    """This processor, a terabyte of memory, and GPUs that are not there."""
    cpu: Cpu = this_inventory(gpus=False).cpu
    gpus = tuple(
        Gpu("nvidia", "virtual", memory_bytes=(free + 1) * GIB, free_bytes=free * GIB)
        for free in gpus_gib
    )
    memory = Memory(1024 * GIB, 1024 * GIB)
    return Inventory(name=None, source="file", system="Linux", cpu=cpu, memory=memory, gpus=gpus)


def engine_parts(said: EngineMemory) -> dict[str, tuple[int, int, int, int]]:
    """(weights, cache, compute, draft) of each device."""
    parts = {d.device: [d.weights_bytes, d.cache_bytes, d.compute_bytes, 0] for d in said.devices}
    for draft in said.draft:
        parts.setdefault(draft.device, [0, 0, 0, 0])[3] = draft.total_bytes
    return {name: (p[0], p[1], p[2], p[3]) for name, p in parts.items()}


def formula_parts(book: Ledger) -> dict[str, tuple[int, int, int, int]]:
    found = {}
    for device in book.devices:
        graph, draft = device.kind_bytes("graph"), device.kind_bytes("draft cache", "draft graph")
        cache = device.cache_bytes + device.expert_cache_bytes
        found[device.device] = (device.weights_bytes, cache, graph, draft)
    return found


def measure(
    spec: ModelSpec,
    name: str,
    gpus_gib: tuple[int, ...],
    every: Sequence[Settings],
    refused: list[str],
) -> Iterator[Row]:
    """Cases that the engine refuses go to `refused`, with its reason."""
    inventory = machine(gpus_gib)
    virtual = [
        VirtualDevice(f"GPU{number}", (free + 1) * GIB, free * GIB)
        for number, free in enumerate(gpus_gib)
    ]
    with DryRun(spec, virtual) as engine:
        for settings in every:
            if settings.mtp_depth and not spec.mtp_layers:
                continue
            if settings.expert_cache_bytes and spec.experts is None:
                continue
            try:
                said = engine.memory(settings)
            except EngineStartFailed as error:
                refused.append(f"{name} {_changed(settings)}: {error}")
                continue
            placement = place(spec, settings, [free * GIB for free in gpus_gib])
            book = ledger(spec, settings, inventory, placement)
            yield _row(spec, name, gpus_gib, settings, engine_parts(said), formula_parts(book))


def _row(
    spec: ModelSpec,
    name: str,
    gpus_gib: tuple[int, ...],
    settings: Settings,
    engine: dict[str, tuple[int, int, int, int]],
    formula: dict[str, tuple[int, int, int, int]],
) -> Row:
    none = (0, 0, 0, 0)
    devices = sorted({*engine, *formula})
    pairs = [(engine.get(device, none), formula.get(device, none)) for device in devices]
    worst = max((abs(sum(f) / sum(e) - 1) for e, f in pairs if sum(e) > 64 * MIB), default=0.0)
    return Row(
        model=name,
        architecture=spec.architecture,
        gpus_gib=gpus_gib,
        settings=_changed(settings),
        weights_bytes=sum(e[0] for e, _ in pairs),
        weights_off_bytes=sum(abs(f[0] - e[0]) for e, f in pairs),
        cache_bytes=sum(e[1] for e, _ in pairs),
        cache_off_bytes=sum(abs(f[1] - e[1]) for e, f in pairs),
        compute_bytes=sum(e[2] for e, _ in pairs),
        compute_formula_bytes=sum(f[2] for _, f in pairs),
        total_bytes=sum(sum(e) for e, _ in pairs),
        total_formula_bytes=sum(sum(f) for _, f in pairs),
        worst_device_error=round(worst, 5),
    )


def _changed(settings: Settings) -> dict[str, Any]:
    base, own = asdict(BASE), asdict(settings)
    return {key: value for key, value in own.items() if value != base[key]}


def references(folder: Path) -> list[dict[str, Any]]:
    """The reference rows: the engine's figures as its own tool plans them, and the formula's."""
    found = []
    for wanted in REFERENCES:
        spec = read_model(folder / f"{wanted.model}.gguf")
        settings = replace(BASE, ubatch=wanted.ubatch, cache_type_k=wanted.cache_type,
                           cache_type_v=wanted.cache_type, flash_attention="on")  # fmt: skip
        book = ledger(spec, settings, machine(()), place(spec, settings))
        with DryRun(spec, ()) as engine:
            said = engine.memory(settings, every_token_outputs=True).devices[0]
        found.append(
            {
                **asdict(wanted),
                "engine": [round(b / MIB, 2) for b in
                           (said.weights_bytes, said.cache_bytes, said.compute_bytes)],
                "formula": [round(b / MIB, 2) for b in
                            (book.device(HOST).weights_bytes, book.device(HOST).cache_bytes)],
            }
        )  # fmt: skip
    return found


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def table(rows: Sequence[Row]) -> str:
    head = (
        "| model | cases | weights and cache exact | total by formula: median, worst | "
        "compute by formula: median, worst |\n|---|---|---|---|---|"
    )
    lines = [head]
    for name in dict.fromkeys(row.model for row in rows):
        own = [row for row in rows if row.model == name]
        totals = [abs(row.total_error) for row in own]
        graphs = [abs(row.compute_error) for row in own]
        lines.append(
            f"| {name} | {len(own)} | {sum(row.exact for row in own)} | "
            f"{statistics.median(totals):.3%}, {max(totals):.2%} | "
            f"{statistics.median(graphs):.2%}, {max(graphs):.1%} |"
        )
    return "\n".join(lines)


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    totals = [abs(row.total_error) for row in rows]
    graphs = [abs(row.compute_error) for row in rows]
    devices = [row.worst_device_error for row in rows]
    return {
        "cases": len(rows),
        "models": len({row.model for row in rows}),
        "architectures": len({row.architecture for row in rows}),
        "weights_and_cache_exact": sum(row.exact for row in rows),
        "total_error_median": round(statistics.median(totals), 6),
        "total_error_worst": round(max(totals), 6),
        "total_within_5_percent": sum(error <= 0.05 for error in totals),
        "compute_error_median": round(statistics.median(graphs), 6),
        "compute_error_p95": round(percentile(graphs, 0.95), 6),
        "worst_device_error_median": round(statistics.median(devices), 6),
        "worst_device_error_p95": round(percentile(devices, 0.95), 6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--output", type=Path, default=RESULTS / "memory.json")
    options = parser.parse_args()
    names = options.only or list(PUBLISHED)
    began = time.monotonic()
    host: list[Row] = []
    gpu: list[Row] = []
    refused: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in {*names, *(wanted.model for wanted in REFERENCES)}:
            shape = PUBLISHED[model]()
            write_header(shape, folder / f"{model}.gguf", types=types_of(shape))
        for model in names:
            spec = read_model(folder / f"{model}.gguf")
            host += measure(spec, model, (), grid(), refused)
            for gpus in dict.fromkeys(case.gpus_gib for case in placed()):
                every = [case.settings for case in placed() if case.gpus_gib == gpus]
                gpu += measure(spec, model, gpus, every, refused)
        rows = references(folder)
    print("Host alone\n\n" + table(host) + "\n")
    print("On GPUs that are not there\n\n" + table(gpu) + "\n")
    for row in rows:
        print(row)
    found = {"host": summary(host), "gpus": summary(gpu)}
    for line in refused:
        print("refused by the engine:", line)
    print(json.dumps(found, indent=1))
    result = {
        "what": "formulae against the engine's dry run; errors relative to the engine's total",
        "seconds": round(time.monotonic() - began),
        **found,
        "references": rows,
        "refused": refused,
        "rows": [asdict(row) for row in (*host, *gpu)],
    }
    options.output.write_text(json.dumps(result, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
