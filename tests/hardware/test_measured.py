from __future__ import annotations

import json
from typing import Any

import pytest

from moestro.errors import HardwareError
from moestro.hardware.measure.figure import Figure, figure_of
from moestro.hardware.measured import (
    KIND,
    Measurements,
    host_to_device,
    keep,
    lay_over,
    main_figure,
    with_measured,
)
from moestro.hardware.store import load, save, stored_path
from moestro.units import GIB
from tests.hardware.machines import machine


def figure(what: str, *rates: float, threads: int = 1) -> Figure:
    return figure_of(what, rates, threads=threads, size_bytes=GIB, how="somehow")


MEMORY = (figure("memory-read", 9e9, 10e9, 12e9), figure("memory-read", 18e9, threads=2),
          figure("memory-copy", 30e9, threads=8))  # fmt: skip
DISKS = {"nvme0n1 /": (figure("disk-sequential", 3e9), figure("disk-random", 1e9, threads=8))}


def test_a_figure_is_the_median_with_its_range():
    bandwidth = MEMORY[0].bandwidth()
    assert (bandwidth.low, bandwidth.bytes_per_second, bandwidth.high) == (9e9, 10e9, 12e9)
    assert bandwidth.source == "measured"
    assert (bandwidth.detail or "").startswith("1 thread, 1.00 GiB, 20")


def test_measurements_take_the_place_of_peaks():
    found = lay_over(machine(), Measurements(MEMORY, DISKS))
    assert found.memory.bandwidth == MEMORY[1].bandwidth()  # reading, with the most threads
    first, second = found.disks
    assert first.sequential == DISKS["nvme0n1 /"][0].bandwidth()
    assert first.random == DISKS["nvme0n1 /"][1].bandwidth()
    assert second == machine().disks[1]
    assert found.gpus == machine().gpus
    assert lay_over(machine(), Measurements()) == machine()
    assert main_figure((), "memory-read") is None


def test_kept_figures_come_back_for_this_machine_only():
    inventory = machine()
    assert with_measured(inventory) == inventory
    keep(inventory, Measurements(MEMORY, DISKS))
    assert with_measured(inventory) == lay_over(inventory, Measurements(MEMORY, DISKS))
    assert with_measured(machine(gpus=())) == machine(gpus=())


def test_what_is_measured_again_replaces_only_itself():
    inventory = machine()
    keep(inventory, Measurements(MEMORY, DISKS))
    newer = (figure("memory-read", 5e9),)
    keep(inventory, Measurements(newer))
    stored = Measurements.from_json(load(KIND, inventory.identity).payload)
    assert stored.memory == newer
    assert stored.disks == DISKS


def test_host_to_device():
    inventory = machine()
    keep(inventory, host_to_device(inventory, 0, [20e9, 22e9, 24e9], GIB, "pinned"))
    link = with_measured(inventory).gpus[0].link
    assert link is not None
    assert link.max_generation == 4
    assert link.bandwidth is not None
    assert (link.bandwidth.source, link.bandwidth.bytes_per_second) == ("measured", 22e9)


def damaged(change: dict[str, Any]) -> Any:
    value = json.loads(json.dumps(Measurements(MEMORY, DISKS).to_json()))
    value["memory"][0].update(change)
    return value


@pytest.mark.parametrize(
    "payload",
    [
        5,
        [],
        {},
        {"memory": 5, "disks": {}, "links": {}},
        {"memory": [], "disks": [], "links": {}},
        {"memory": [{}], "disks": {}, "links": {}},
        damaged({"bytes_per_second": -1}),
        damaged({"bytes_per_second": "fast"}),
        damaged({"measured_at": "yesterday"}),
        damaged({"measured_at": 5}),
        damaged({"threads": "many", "size_bytes": None}),
        damaged({"unknown": 1}),
    ],
)
def test_damaged_figures_are_a_finding_and_are_replaced(payload: Any):
    with pytest.raises(HardwareError):
        Measurements.from_json(payload)
    inventory = machine()
    save(KIND, inventory.identity, payload)
    found = with_measured(inventory)
    assert found.memory == inventory.memory
    assert found.findings[-1].code == "stored-measurement-unreadable"
    keep(inventory, Measurements(MEMORY))
    assert with_measured(inventory).memory.bandwidth == MEMORY[1].bandwidth()


def test_a_damaged_file_is_a_finding():
    inventory = machine()
    path = stored_path(KIND, inventory.identity)
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert with_measured(inventory).findings[-1].code == "stored-measurement-unreadable"
