"""Compares forecasts from makers' figures alone with speeds that others published.

    python -m bench.planner.published_speed [--save]

Nothing of these machines was measured here: rates come from `moestro.planning.roofline`. The
constants there were chosen on the machines of `data/published_speed.json` whose half is “choose”;
the errors of the others say what a forecast for a machine is worth that nobody tried. The program
that most figures come from, llama-bench, neither samples nor serves, so neither is counted.
`--save` writes `results/published_speed.json`.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import statistics
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.shapes import PUBLISHED, write_header
from tests.shapes.families import gpt_oss, llama
from tests.shapes.shape import Shape

from bench.planner.random_models import recipe
from moestro.hardware import Bandwidth, Gpu, Inventory, Link, hardware_named
from moestro.hardware.catalogue import parse_capability, parse_pcie
from moestro.model import ModelSpec, read_model
from moestro.planning.placement import Placement, place
from moestro.planning.pricing import seconds_of
from moestro.planning.rates import KernelRates
from moestro.planning.roofline import Where, assumed_range, assumed_rates
from moestro.planning.settings import Settings
from moestro.planning.transfer import computing_device, crossing_seconds, offload_seconds
from moestro.planning.work import Pass, operations

HERE = Path(__file__).parent
DATA = HERE / "data" / "published_speed.json"
RESULT = HERE / "results" / "published_speed.json"
HALVES = ("choose", "held out")
ALL_BLOCKS = 99

SHAPES: dict[str, Callable[[], Shape]] = {
    **PUBLISHED,
    "gpt-oss-120b": lambda: gpt_oss(
        layers=36, hidden=2880, heads=64, kv_heads=8, head_dim=64, expert_ffn=2880, experts=128,
        used=4, vocab=201088,
    ),
    "Llama-3-8B": lambda: llama(
        layers=32, hidden=4096, heads=32, kv_heads=8, ffn=14336, vocab=128256
    ),
    "Llama-2-7B": lambda: llama(
        layers=32, hidden=4096, heads=32, kv_heads=32, ffn=11008, vocab=32000
    ),
    "Qwen2.5-7B": lambda: llama(
        layers=28, hidden=3584, heads=28, kv_heads=4, ffn=18944, vocab=152064,
        architecture="qwen2", bias=True,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Point:
    """One published figure. `depth` cells lie in front; `tokens` is the prompt or the answer."""

    machine: str
    half: str
    model: str
    quantization: str
    test: str
    tokens: int
    depth: int
    ubatch: int
    streams: int
    cpu_expert_layers: int
    published: float
    source: str

    @property
    def name(self) -> str:
        parts = [self.machine, f"{self.model} {self.quantization}", f"{self.test} {self.tokens}"]
        if self.depth:
            parts.append(f"depth {self.depth}")
        if self.streams > 1:
            parts.append(f"{self.streams} streams")
        if self.test == "prefill":
            parts.append(f"ubatch {self.ubatch}")
        if self.cpu_expert_layers:
            parts.append(f"experts of {self.cpu_expert_layers} blocks on the host")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Row:
    point: Point
    where: Where
    forecast: float

    @property
    def ratio(self) -> float:
        """Above 1 where the machine was faster than forecast."""
        return self.point.published / self.forecast

    @property
    def error(self) -> float:
        return abs(self.forecast / self.point.published - 1)

    @property
    def in_range(self) -> bool:
        low, high = assumed_range(self.point.test == "prefill", self.where)
        return low <= self.ratio <= high


def load_points() -> tuple[list[Point], dict[str, Inventory]]:
    data = json.loads(DATA.read_text())
    machines = {name: _inventory(entry) for name, entry in data["machines"].items()}
    points = [
        Point(
            machine=item["machine"],
            half=data["machines"][item["machine"]]["half"],
            model=item["model"],
            quantization=item["quantization"],
            test=item["test"],
            tokens=item.get("tokens", 1),
            depth=item.get("depth", 0),
            ubatch=item.get("ubatch", 512),
            streams=item.get("streams", 1),
            cpu_expert_layers=item.get("cpu_expert_layers", 0),
            published=item["tokens_per_second"],
            source=data["sources"][item["source"]],
        )
        for item in data["points"]
    ]
    return points, machines


def _inventory(entry: dict[str, Any]) -> Inventory:
    inventory = hardware_named(entry["hardware"])
    stated = entry.get("gpu")
    if stated is None:
        return inventory
    generation, width = parse_pcie(stated["pcie"])
    capability = stated.get("capability")
    gpu = Gpu(
        vendor=stated["vendor"],
        name=stated["name"],
        memory_bytes=int(stated["memory_gib"] * 2**30),
        capability=parse_capability(capability) if capability else None,
        bandwidth=Bandwidth(stated["bandwidth_gb_s"] * 1e9, "computed"),
        link=Link(generation, width).with_peak(),
        tflops_f16=stated["tflops_f16"],
    )
    return replace(inventory, gpus=(gpu,))


@functools.cache
def model_of(name: str, quantization: str) -> ModelSpec:
    shape = SHAPES[name]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write_header(shape, path, types=recipe(quantization, shape))
        return read_model(path)


def forecast(point: Point, inventory: Inventory) -> Row:
    model = model_of(point.model, point.quantization)
    rates = assumed_rates(inventory, model)
    if rates is None:
        raise ValueError(f"{point.machine}: a bandwidth is not stated")
    settings = Settings(
        context=point.depth + point.tokens + 256,
        parallel=point.streams,
        threads=inventory.cpu.usable_cores or 1,
        ubatch=point.ubatch,
        gpu_layers=None if inventory.gpus else 0,
        cpu_expert_layers=point.cpu_expert_layers,
    )
    placement = place(model, settings, [gpu.memory_bytes or 0 for gpu in inventory.gpus])
    where: Where = "cpu" if not inventory.gpus else "gpu"
    if inventory.gpus and point.cpu_expert_layers:
        where = "mixed"
    if point.test == "decode":
        depth = point.depth + point.tokens // 2
        batch = Pass(point.streams, point.streams, depth, point.streams)
        seconds = pass_seconds(model, placement, inventory, rates, batch)
        return Row(point, where, point.streams / seconds)
    seconds, done = 0.0, 0
    while done < point.tokens:
        size = min(point.ubatch, point.tokens - done)
        batch = Pass(size, 1, point.depth + done, 1 if done + size == point.tokens else 0)
        seconds += pass_seconds(model, placement, inventory, rates, batch)
        done += size
    return Row(point, where, point.tokens / seconds)


def pass_seconds(
    model: ModelSpec,
    placement: Placement,
    inventory: Inventory,
    rates: dict[str, KernelRates],
    batch: Pass,
) -> float:
    total = crossing_seconds(model, placement, batch.tokens)
    copy = offload_seconds(model, placement, inventory, batch.tokens)
    if copy is None:
        raise ValueError("a link is not stated")
    for operation in operations(
        model, batch, computing_device(placement, batch.tokens, offloads=bool(inventory.gpus))
    ):
        seconds = seconds_of(operation, rates[operation.device], 1.0)
        if seconds is None:
            raise ValueError(f"no rate for {operation}")
        total += seconds
    return total + copy


def summary(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Of each half, and of each kind in it."""
    rows = list(rows)
    found = []
    for half in HALVES:
        mine = [row for row in rows if row.point.half == half]
        groups = {"all": mine}
        for test in ("decode", "prefill"):
            for where in ("gpu", "mixed", "cpu"):
                groups[f"{test}, {where}"] = [
                    row for row in mine if row.point.test == test and row.where == where
                ]
        for name, members in groups.items():
            if not members:
                continue
            errors = sorted(row.error for row in members)
            found.append(
                {
                    "half": half,
                    "kind": name,
                    "points": len(members),
                    "machines": len({row.point.machine for row in members}),
                    "median_error": statistics.median(errors),
                    "p90_error": errors[math.ceil(0.9 * len(errors)) - 1],
                    "lowest_ratio": min(row.ratio for row in members),
                    "highest_ratio": max(row.ratio for row in members),
                    "in_range": sum(row.in_range for row in members) / len(members),
                }
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    points, machines = load_points()
    rows = [forecast(point, machines[point.machine]) for point in points]
    for half in HALVES:
        print(f"\n{half}: forecast, published, published over forecast")
        for row in rows:
            if row.point.half == half:
                figures = f"{row.forecast:9.1f} {row.point.published:9.1f} {row.ratio:6.2f}"
                print(f"{figures} {' ' if row.in_range else '!'} {row.point.name}")
    found = summary(rows)
    print("\nhalf      kind             points machines  median    p90   ratios      in range")
    for item in found:
        print(
            f"{item['half']:9} {item['kind']:16} {item['points']:6} {item['machines']:8}"
            f" {item['median_error']:7.0%} {item['p90_error']:6.0%}"
            f"   {item['lowest_ratio']:.2f}–{item['highest_ratio']:.2f} {item['in_range']:9.0%}"
        )
    if arguments.save:
        rows_json = [
            {
                "point": row.point.name,
                "half": row.point.half,
                "forecast": round(row.forecast, 1),
                "published": row.point.published,
                "source": row.point.source,
            }
            for row in rows
        ]
        result = {"summary": found, "points": rows_json}
        RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
