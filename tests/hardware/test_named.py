from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moestro.errors import UsageError
from moestro.hardware import Inventory, hardware_named
from moestro.units import GIB, MIB


def assumptions(inventory: Inventory) -> str:
    (finding,) = [found for found in inventory.findings if found.code == "host-assumed"]
    return finding.evidence or ""


def test_a_card_stands_in_an_assumed_host():
    inventory = hardware_named("rtx-4090")
    assert inventory.source == "catalogue"
    assert inventory.cpu.usable_cores == 8
    assert inventory.memory.total_bytes == 64 * GIB
    assert inventory.memory.available_bytes == 62 * GIB
    assert inventory.memory.bandwidth is not None
    assert inventory.memory.bandwidth.source == "assumed"
    assert inventory.gpus[0].memory_bytes == 24564 * MIB
    assert inventory.gpus[0].free_bytes is None
    for word in ("64.0 GiB", "DDR5-5600", "2 memory channels", "8 cores", "taken by the system"):
        assert word in assumptions(inventory)


@pytest.mark.parametrize(
    "text",
    [
        "2 × rtx-4090, 128 GiB DDR5-5600 dual channel, PCIe 4.0 x8",
        "2x4090,128GiB DDR5-5600 2 channels,pcie gen4 x8",
        "PCIe 4.0 x8, 128 GiB dual-channel RAM DDR5-5600, 2 * RTX 4090",
        "rtx 4090, geforce rtx 4090, 128 GiB ddr5-5600 dual channel, 4.0 x8".replace(
            ", 4.0", ", PCIe 4.0"
        ),
        "2 rtx-4090, 128 GiB DDR5-5600 dual channel, PCIe 5.0 x8",  # the slot is newer
    ],
)
def test_a_line(text: str):
    inventory = hardware_named(text)
    assert [gpu.name for gpu in inventory.gpus] == ["NVIDIA GeForce RTX 4090"] * 2
    assert inventory.memory.total_bytes == 128 * GIB
    assert (inventory.memory.kind, inventory.memory.channels) == ("DDR5-5600", 2)
    assert inventory.memory.bandwidth is not None
    assert inventory.memory.bandwidth.bytes_per_second == 89.6e9
    assert inventory.memory.bandwidth.source == "computed"
    for gpu in inventory.gpus:
        assert gpu.link is not None
        assert (gpu.link.generation, gpu.link.width) == (4, 8)
        assert gpu.link.bandwidth is not None
        assert gpu.link.bandwidth.bytes_per_second == pytest.approx(15.75e9, rel=0.001)
    assert "memory channels" not in assumptions(inventory)


def test_uneven_cards_cores_disk_and_a_measured_memory():
    inventory = hardware_named("rtx-3090, 4090, 16 cores, 64 GiB 75 GB/s, 7 GB/s nvme")
    assert [gpu.name[-4:] for gpu in inventory.gpus] == ["3090", "4090"]
    assert inventory.cpu.usable_cores == 16
    assert inventory.memory.bandwidth is not None
    assert (inventory.memory.bandwidth.bytes_per_second, inventory.memory.bandwidth.source) == (
        75e9,
        "user",
    )
    (disk,) = inventory.disks
    assert disk.kind == "nvme"
    assert disk.sequential is not None
    assert disk.sequential.bytes_per_second == 7e9


def test_no_gpu():
    inventory = hardware_named("cpu, 256 GiB DDR4-3200 8 channels, 32 cores")
    assert inventory.gpus == ()
    assert inventory.memory.bandwidth is not None
    assert inventory.memory.bandwidth.bytes_per_second == 204.8e9


def test_a_whole_machine():
    inventory = hardware_named("m2-ultra")
    assert inventory.memory.unified
    assert inventory.memory.total_bytes == 192 * GIB
    assert inventory.gpus[0].memory_bytes == 144 * GIB
    smaller = hardware_named("m2-ultra, 64 GiB")
    assert (smaller.memory.total_bytes, smaller.gpus[0].memory_bytes) == (64 * GIB, 48 * GIB)
    assert smaller.memory.bandwidth == inventory.memory.bandwidth
    spark = hardware_named("dgx spark")
    assert spark.gpus[0].memory_bytes == spark.memory.total_bytes


def test_decimal_memory_is_taken_as_written():
    inventory = hardware_named("rtx-4090, 128 GB")
    assert inventory.memory.total_bytes == 128 * 10**9
    assert "decimal-memory" in [finding.code for finding in inventory.findings]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty part"),
        ("rtx-4090,,64 GiB", "empty part"),
        ("rtx-4090, 64 GiB, 32 GiB", "second time"),
        ("rtx-4090, 8 cores, 9 cores", "second time"),
        ("rtx-4090, PCIe 4.0 x8, PCIe 3.0 x8", "second time"),
        ("m2-ultra, m4-max", "second time"),
        ("rtx-4090, 64 GiB of fast stuff", "not understood"),
        ("rtx-4090, PCIe 4.0", "not a PCIe link"),
        ("rtx-4090, PCIe 4.0 x7", "no PCIe 4.0 x7"),
        ("64 GiB, PCIe 4.0 x8", "no GPU"),
        ("2 x m2-ultra", "whole machine"),
        ("0 x rtx-4090", "no GPU at all"),
        ("rtx-4090, 0 cores", "zero"),
        ("rtx-4090, 0 GiB", "zero"),
        ("rtx-4090, 64 GiB DDR5-5600 0 channels", "zero"),
        ("rtx-4090, 64 GiB 0 GB/s", "less than a byte"),
        ("rtx-4090, 64", "not hardware known here"),
        ("no-such-machine.toml", "cannot be read"),
        # Numbers that overflow, or that Python does not read.
        *(
            (text.replace("N", digits), words)
            for digits in ("9" * 400, "9" * 5000)
            for text, words in (
                ("cpu, N GiB", "more than any machine"),
                ("cpu, 64 GiB N GB/s", "more than any machine"),
                ("cpu, N GB/s nvme", "more than any machine"),
                ("cpu, N cores", "not hardware known here"),
                ("N x rtx-4090", "not hardware known here"),
                ("cpu, 64 GiB N channels", "not understood"),
                ("rtx-4090, PCIe 4.0 xN", "not a PCIe link"),
            )
        ),
    ],
)
def test_lines_that_are_refused(text: str, words: str):
    with pytest.raises(UsageError, match=words):
        hardware_named(text)


@given(st.text(alphabet="0123456789 ,x×.rtxGiBDPCe-/s", max_size=40))
def test_any_text_is_a_machine_or_a_sentence(text: str):
    with suppress(UsageError):
        assert hardware_named(text).memory.total_bytes > 0


def test_a_path_is_a_file(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text('[[gpus]]\nname = "rtx-4090"\n')
    assert hardware_named(str(path)).name == "mine"
