from __future__ import annotations

from dataclasses import replace

import pytest

from moestro.errors import UsageError
from moestro.hardware import Gpu
from moestro.hardware.catalogue import (
    GpuRow,
    MachineRow,
    catalogue,
    find_row,
    parse_capability,
    parse_pcie,
    with_catalogue,
)
from moestro.units import GIB, MIB
from tests.hardware.machines import machine

ROWS = catalogue()


@pytest.mark.parametrize("key", ROWS)
def test_every_row_is_complete(key: str):
    row = ROWS[key]
    assert row.source.startswith("https://") or row.source.endswith(")")
    assert row.memory_from in ("driver", "label")
    assert row.gpu.bandwidth is not None
    # From a desktop chip to the largest accelerator, in bytes per second.
    assert 100e9 <= row.gpu.bandwidth.bytes_per_second <= 8.2e12
    if isinstance(row, GpuRow):
        assert 7 * GIB < (row.gpu.memory_bytes or 0) < 200 * GIB
        assert row.gpu.link is not None
        assert row.gpu.link.bandwidth is not None
        assert row.gpu.tflops_f16 is not None
        assert not row.gpu.shared
    else:
        assert row.gpu.shared
        assert row.memory_bytes >= 16 * GIB
    assert (row.gpu.capability is None) == (row.gpu.vendor != "nvidia")
    assert (row.gpu.target is None) == (row.gpu.vendor != "amd")


@pytest.mark.parametrize("key", ROWS)
def test_every_row_is_found_by_all_its_names(key: str):
    row = ROWS[key]
    assert find_row(key) is row
    assert find_row(key.upper().replace("-", " ")) is row
    for alias in row.aliases:
        assert find_row(alias) is row
    namesakes = [other for other in ROWS.values() if other.name == row.name]
    assert find_row(row.name) in namesakes


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("4090", "rtx-4090"),
        ("RTX4090", "rtx-4090"),
        ("rtx 4090", "rtx-4090"),
        ("geforce rtx 4090", "rtx-4090"),
        (" NVIDIA GeForce RTX 4090 ", "rtx-4090"),
        ("3090 24GB", "rtx-3090"),
        ("rtx 4090 24 GiB", "rtx-4090"),
        ("3080 12gb", "rtx-3080-12gb"),
        ("3080 10gb", "rtx-3080"),
        ("4060 Ti 16GB", "rtx-4060-ti-16gb"),
        ("a100", "a100-80gb-sxm"),
        ("A100 40GB", "a100-40gb-pcie"),
        ("7900 XTX", "rx-7900-xtx"),
        ("MI300X", "mi300x"),
        ("Apple M2 Ultra", "m2-ultra"),
        ("M2Ultra", "m2-ultra"),
        ("DGX Spark", "gb10"),
        ("ryzen ai max+ 395", "strix-halo"),
    ],
)
def test_spellings(text: str, key: str):
    assert find_row(text).key == key


@pytest.mark.parametrize(
    ("text", "near"),
    [("rtx-4091", "rtx-4090"), ("rtx 4900", "rtx-4090"), ("m2-ulta", "m2-ultra"),
     ("h10", "h100-sxm"), ("3090 48gb", "rtx-3090")],
)  # fmt: skip
def test_an_unknown_name_says_what_is_near(text: str, near: str):
    with pytest.raises(UsageError) as caught:
        find_row(text)
    assert caught.value.code == "hardware-unknown"
    assert near in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["", "  ", "?!", "zzzzzzzz", "\x1b[31m"])
def test_names_like_nothing(text: str):
    with pytest.raises(UsageError, match="not hardware known here") as caught:
        find_row(text)
    assert "--list" in (caught.value.hint or "")


def test_published_figures():
    """Spot checks against the makers' sheets."""
    card = ROWS["rtx-4090"].gpu
    assert card.memory_bytes == 24564 * MIB
    assert card.bandwidth is not None
    assert card.bandwidth.bytes_per_second == 1008e9
    assert card.capability == (8, 9)
    ultra = ROWS["m2-ultra"]
    assert isinstance(ultra, MachineRow)
    assert (ultra.memory_bytes, ultra.bandwidth.bytes_per_second) == (192 * GIB, 800e9)


def test_makers_figures_fill_gaps_only():
    (card,) = machine().gpus
    bare = replace(card, bandwidth=None, tflops_f16=None)
    (filled,) = with_catalogue(machine(gpus=(bare,))).gpus
    assert (filled.bandwidth, filled.tflops_f16) == (ROWS["rtx-4090"].gpu.bandwidth, 165.2)
    unknown = Gpu("nvidia", "NVIDIA GeForce RTX 4090 Laptop GPU", 16 * GIB)
    assert with_catalogue(machine(gpus=(unknown,))).gpus == (unknown,)


def test_cards_of_one_name_are_told_apart_by_memory():
    cards = tuple(Gpu("nvidia", "NVIDIA GeForce RTX 3080", size * GIB) for size in (10, 12))
    small, large = with_catalogue(machine(gpus=cards)).gpus
    assert small.bandwidth == ROWS["rtx-3080"].gpu.bandwidth
    assert large.bandwidth == ROWS["rtx-3080-12gb"].gpu.bandwidth


@pytest.mark.parametrize(
    "text", ["4.0 x16", "PCIe 4.0 x16", "pcie4.0x16", "PCIe Gen4 x16", "gen 4 ×16", "4 x 16"]
)
def test_pcie(text: str):
    assert parse_pcie(text) == (4, 16)


@pytest.mark.parametrize("text", ["", "x16", "4.0", "PCIe 9.0 x16", "4.5 x16", "fast"])
def test_pcie_that_is_none(text: str):
    with pytest.raises(UsageError, match="not a PCIe link"):
        parse_pcie(text)


def test_capability():
    assert parse_capability("12.0") == (12, 0)
    with pytest.raises(UsageError):
        parse_capability("ada")
