"""Rates of devices that nobody measured, from what their makers state about them.

A roofline: an operation takes as long as its bytes need from memory or its arithmetic from the
cores, whichever is longer, and starting it costs something too. How much of the stated peaks
llama.cpp reaches was chosen from published runs; `bench/planner/published_speed.py` prints how far
off it is for runs that had no part in the choice. Everything forecast from here is *assumed*.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from moestro.hardware import Bandwidth, Cpu, Gpu, Inventory
from moestro.model import ModelSpec, TensorInfo
from moestro.planning.placement import HOST, gpu_name
from moestro.planning.rates import AttentionRates, Curve, KernelRates, SmallRates, TypeRates
from moestro.planning.work import Attention, ExpertProduct, Pass, Product, operations

Where = Literal["gpu", "mixed", "cpu"]
"""What computes: GPUs alone, GPUs with experts on the host, the host alone."""

ASSUMED = "assumed"
"""Stands in `KernelRates.measured_at` where nothing was measured."""

COLUMNS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
CELLS = (256, 1024, 4096, 16384, 65536)


@dataclass(frozen=True, slots=True)
class GpuEfficiency:
    """What llama.cpp reaches on one kind of GPU.

    `bandwidth` is the share of the peak at which products with one column read their weights,
    `dense` and `experts` the shares of `tflops_f16` of products with many columns, `attention` that
    of attention over a prompt; where that figure is unknown, `teraflops_per_terabyte` of bandwidth
    stand in for it. `launch` is what one product or attention costs beyond its bytes,
    `node` the same of a small operation, after fusion. Seconds.
    """

    bandwidth: float
    dense: float
    experts: float
    attention: float
    launch: float
    node: float
    teraflops_per_terabyte: float


_RANGES: dict[tuple[bool, Where], tuple[float, float]] = {
    (False, "gpu"): (0.70, 1.40),
    (True, "gpu"): (0.55, 1.60),
    (False, "mixed"): (0.50, 1.50),
    (True, "mixed"): (0.55, 1.60),
    (False, "cpu"): (0.60, 1.50),
    (True, "cpu"): (0.50, 1.70),
}


def assumed_range(prefill: bool, where: Where) -> tuple[float, float]:
    """Factors on a rate forecast from here, for the low and the high end.

    With GPUs alone, nine in ten published figures or more lie between them, on machines that had
    no part in choosing the constants as on those that had. The others rest on few figures.
    """
    return _RANGES[prefill, where]


def assumed_rates(inventory: Inventory, model: ModelSpec) -> dict[str, KernelRates] | None:
    """Rates of "CPU", "GPU0" … for the operations of `model`; None if a bandwidth is unknown.

    The cost of starting operations is spread over the model's own matrices, so rates made for one
    model are not to be used for another.
    """
    memory = inventory.memory.bandwidth
    if memory is None:
        return None
    rates = {HOST: _cpu_rates(inventory.cpu, memory, model)}
    for number, gpu in enumerate(inventory.gpus):
        bandwidth = gpu.bandwidth or (memory if gpu.shared else None)
        if bandwidth is None:
            return None
        rates[gpu_name(number)] = _gpu_rates(gpu_name(number), gpu, bandwidth, model)
    return rates


# ---------------------------------------------------------------------------------------------
# What a model's operations look like


@dataclass(frozen=True, slots=True)
class _Census:
    """`spread[type]` is how many products there are for one element of their matrices;
    `shared_heads` is how many query heads look at one key head, weighted by width. `attention`
    holds the key and value widths of one head."""

    bytes_per_element: Mapping[str, float]
    spread: Mapping[str, float]
    expert_products_per_layer: float
    shared_heads: float
    attention: frozenset[tuple[int, int]]


def _census(model: ModelSpec) -> _Census:
    found = operations(model, Pass(1), lambda _: "")
    products, elements = Counter[str](), Counter[str]()
    expert_products = 0
    for item in found:
        if isinstance(item, Product):
            products[item.type] += 1
            elements[item.type] += item.elements
        elif isinstance(item, ExpertProduct):
            expert_products += 1
    spread = {name: products[name] / elements[name] for name in products}
    attention = [item for item in found if isinstance(item, Attention)]
    values = sum(item.width for item in attention)
    stored = sum(
        store.key_width + (store.value_width or 0)
        for layer in model.layers or ()
        if not layer.mtp
        for store in layer.stores
    )
    experts = model.experts
    return _Census(
        bytes_per_element=_bytes_per_element(model.tensors),
        spread=spread,
        expert_products_per_layer=expert_products / max(experts.layers if experts else 1, 1),
        shared_heads=max(values / stored, 1.0) if stored else 1.0,
        attention=frozenset(
            (item.head or 128, 512 if item.latent else item.head or 128) for item in attention
        ),
    )


def _bytes_per_element(tensors: tuple[TensorInfo, ...]) -> dict[str, float]:
    found: dict[str, float] = {}
    for tensor in tensors:
        if len(tensor.shape) > 1:
            found[tensor.type] = tensor.size_bytes / math.prod(tensor.shape)
    return found


# ---------------------------------------------------------------------------------------------
# GPUs

# Chosen on the machines of bench/planner/data/published_speed.json whose half is “choose”. Those of
# data centres lie above what was published, as the figures are of builds three years old.
_GEFORCE = GpuEfficiency(0.80, 0.80, 0.45, 0.55, 4.0e-6, 1.2e-6, 160)
_WORKSTATION = GpuEfficiency(0.80, 0.30, 0.14, 0.35, 3.0e-6, 1.2e-6, 450)
_DATA_CENTER = GpuEfficiency(0.58, 0.19, 0.08, 0.25, 6.0e-6, 1.5e-6, 250)
_AMD = GpuEfficiency(0.60, 0.42, 0.22, 0.19, 6.5e-6, 2.2e-6, 150)
_APPLE = GpuEfficiency(0.56, 0.72, 0.46, 0.44, 4.0e-6, 2.2e-6, 34)


def gpu_efficiency(gpu: Gpu) -> GpuEfficiency:
    """By vendor and kind. GeForce cards are stated with half the rate that workstation cards of the
    same chip are stated with, and do not compute at half their speed. Of the tensor units of cards
    for data centres the kernels for quantized weights use a smaller part still."""
    if gpu.vendor == "apple":
        return _APPLE
    if gpu.vendor == "amd":
        return _DATA_CENTER if (gpu.target or "").startswith("gfx9") else _AMD
    if gpu.capability in ((7, 0), (8, 0), (9, 0), (10, 0), (10, 3)):
        return _DATA_CENTER
    return _GEFORCE if "GeForce" in gpu.name else _WORKSTATION


def _gpu_rates(name: str, gpu: Gpu, bandwidth: Bandwidth, model: ModelSpec) -> KernelRates:
    census, share = _census(model), gpu_efficiency(gpu)
    peak = bandwidth.bytes_per_second
    read = peak * (share.bandwidth if bandwidth.is_peak else 1.0)
    flops = (gpu.tflops_f16 or share.teraflops_per_terabyte * peak / 1e12) * 1e12
    return KernelRates(
        device=name,
        description=gpu.name,
        threads=1,
        engine_version=ASSUMED,
        measured_at=ASSUMED,
        types={
            type_: _gpu_type(size, census.spread.get(type_, 0.0), read, flops, share)
            for type_, size in census.bytes_per_element.items()
        },
        attention=_attention(census, read, flops * share.attention, flops * share.attention),
        small=_small_rates(share.node, 8 / read, census, share.launch),
        recurrent=_recurrent(read, flops * 0.05),
        knee=Curve(((1.0, 1 / peak),)),
    )


def _gpu_type(
    size: float, spread: float, read: float, flops: float, share: GpuEfficiency
) -> TypeRates:
    start = spread * share.launch
    dense = _curve(size / read, 2 / (flops * share.dense), start)
    experts = _curve(size / read, 2 / (flops * share.experts), 0.0)
    return TypeRates(dense, dense, dense, experts, experts, size, False)


def _curve(read: float, column: float, start: float) -> Curve:
    """Seconds per element over columns: memory or arithmetic, and the start of the kernel."""
    return Curve(tuple((float(n), max(read, n * column) + start) for n in COLUMNS))


def _attention(
    census: _Census, read: float, decode_flops: float, prefill_flops: float
) -> tuple[AttentionRates, ...]:
    """For every pair of cache types and every kind of heads that the model has."""
    found = []
    for key, value in sorted(census.attention):
        for type_k, size_k in CACHE_BYTES.items():
            for type_v, size_v in CACHE_BYTES.items():
                size = (size_k + size_v) / 2 / census.shared_heads
                one = max(size / read, 2 / decode_flops)
                few = max(size / 4 / read, 2 / decode_flops)
                found.append(
                    AttentionRates(
                        key=key, value=value, type_k=type_k, type_v=type_v,
                        decode=Curve(tuple((float(n), one) for n in CELLS)),
                        streams=Curve(((1.0, one),)), few=few,
                        prefill=Curve(((0.0, 2 / prefill_flops),)),
                    )
                )  # fmt: skip
    return tuple(found)


CACHE_BYTES = {
    "F16": 2.0, "BF16": 2.0, "F32": 4.0, "Q8_0": 34 / 32, "Q5_1": 24 / 32, "Q5_0": 22 / 32,
    "Q4_1": 20 / 32, "Q4_0": 18 / 32, "IQ4_NL": 18 / 32,
}  # fmt: skip
"""Per value of the cache: bytes of a block over its values."""

SMALL_NAMES = ("norm", "l2_norm", "add", "mul", "swiglu_split", "rope", "set_rows", "silu",
               "sigmoid", "cont", "soft_max", "sum_rows", "argsort_top_k")  # fmt: skip


def _small_rates(
    node: float, element: float, census: _Census, launch: float
) -> dict[str, SmallRates]:
    """Products with experts and attention start with an operation that stands beside each."""
    rates = {name: SmallRates(node, element) for name in SMALL_NAMES}
    rates["argsort_top_k"] = SmallRates(node + launch * census.expert_products_per_layer, element)
    rates["set_rows"] = SmallRates(node + launch / 2, element)
    return rates


def _recurrent(read: float, flops: float) -> dict[str, Curve]:
    """A step reads and writes the state, 4 bytes a value; in a prompt it stays on the chip."""
    step = 8 / read
    scan = Curve(((1.0, step), (4.0, max(step / 4, 8 / flops)), (256.0, 8 / flops)))
    convolution = Curve(((1.0, 40 / read), (256.0, 16 / read)))
    return {"gated_delta_net": scan, "state_scan": scan, "convolution": convolution}


# ---------------------------------------------------------------------------------------------
# The host

_CPU_BANDWIDTH = 0.70
_CPU_NODE = 1.5e-6
_CPU_BARRIER = 0.10e-6
"""What one operation costs the host, and what each core adds to it."""

_CORE_FLOPS = {
    "F32": (10e9, 28e9), "F16": (23e9, 40e9), "BF16": (10e9, 20e9), "Q8_0": (27e9, 50e9),
}  # fmt: skip
_CORE_FLOPS_OTHERS = (30e9, 70e9)
"""Operations per second of one desktop core: with one column, with many. How types compare was
measured (`bench/planner/results/kernel_rates_2_threads.json`, on a slower core), the level chosen
from published runs."""

_SAMPLING = Curve(((32768.0, 66e-6), (151936.0, 366e-6)))
_STEP = 70e-6


def _cpu_rates(cpu: Cpu, bandwidth: Bandwidth, model: ModelSpec) -> KernelRates:
    census = _census(model)
    cores = cpu.usable_cores or cpu.physical_cores or 1
    peak = bandwidth.bytes_per_second
    read = peak * (_CPU_BANDWIDTH if bandwidth.is_peak else 1.0)
    start = _CPU_NODE + cores * _CPU_BARRIER
    types = {}
    for type_, size in census.bytes_per_element.items():
        single, many = _CORE_FLOPS.get(type_, _CORE_FLOPS_OTHERS)
        slope = {n: 2 / (cores * (single if n < 4 else many)) for n in COLUMNS}
        begin = start * census.spread.get(type_, 0.0)
        dense = Curve(tuple((float(n), max(size / read, n * slope[n]) + begin) for n in COLUMNS))
        experts = Curve(tuple((float(n), max(size / read, n * slope[n])) for n in COLUMNS))
        types[type_] = TypeRates(dense, dense, dense, experts, experts, size, False)
    return KernelRates(
        device=HOST,
        description=cpu.model or cpu.architecture,
        threads=cores,
        engine_version=ASSUMED,
        measured_at=ASSUMED,
        types=types,
        attention=_attention(census, read, cores * 10e9, cores * 30e9),
        small=_small_rates(start, 1e-9 / cores, census, start),
        recurrent=_recurrent(read, cores * 15e9),
        knee=Curve(((1.0, 1 / peak),)),
        step=_STEP,
        sampling=_SAMPLING,
    )
