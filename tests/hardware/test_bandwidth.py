from __future__ import annotations

import math
from typing import Any

import pytest

from moestro.errors import HardwareError
from moestro.hardware.bandwidth import Bandwidth, BandwidthSource, memory_bandwidth, pcie_bandwidth
from moestro.hardware.gpu import Gpu, Link
from moestro.units import GIB


@pytest.mark.parametrize(
    ("generation", "width", "gigabytes"),
    # What the standard's tables round to.
    [(1, 16, 4.0), (3, 16, 15.75), (4, 8, 15.75), (4, 16, 31.5), (5, 16, 63.0), (6, 16, 121.0)],
)
def test_pcie(generation: int, width: int, gigabytes: float):
    found = pcie_bandwidth(generation, width)
    assert found.bytes_per_second / 1e9 == pytest.approx(gigabytes, rel=0.001)
    assert found.source == "computed"
    assert found.is_peak


@pytest.mark.parametrize(
    ("source", "peak"),
    [
        ("measured", False),
        ("user", False),
        ("catalogue", True),
        ("computed", True),
        ("assumed", True),
    ],
)
def test_which_figures_are_peaks(source: BandwidthSource, peak: bool):
    assert Bandwidth(1e9, source).is_peak is peak


@pytest.mark.parametrize(("generation", "width"), [(0, 16), (8, 16), (4, 3), (4, 0)])
def test_pcie_that_does_not_exist(generation: int, width: int):
    with pytest.raises(HardwareError, match="There is no PCIe"):
        pcie_bandwidth(generation, width)


def test_memory():
    assert memory_bandwidth(5600, 2).bytes_per_second == 89.6e9
    assert memory_bandwidth(3200, 8).bytes_per_second == 204.8e9
    with pytest.raises(HardwareError):
        memory_bandwidth(5600, 0)


@pytest.mark.parametrize(
    "values",
    [
        {"bytes_per_second": 0},
        {"bytes_per_second": -1.0},
        {"bytes_per_second": math.inf},
        {"bytes_per_second": math.nan},
        {"bytes_per_second": 10**400},
        {"bytes_per_second": 10**5000},
        {"source": "rumour"},
        {"low": 2.0},
        {"high": 0.5},
        {"low": 0},
    ],
)
def test_impossible_bandwidths(values: dict[str, Any]):
    with pytest.raises(HardwareError):
        Bandwidth(**{"bytes_per_second": 1.0, "source": "measured", **values})


@pytest.mark.parametrize(
    "values",
    [
        {"vendor": "matrox"},
        {"name": ""},
        {"memory_bytes": 0},
        {"free_bytes": 25 * GIB},
        {"free_bytes": -1},
        {"tflops_f16": 0},
    ],
)
def test_impossible_gpus(values: dict[str, Any]):
    with pytest.raises(HardwareError):
        Gpu(**{"vendor": "nvidia", "name": "X", "memory_bytes": 24 * GIB, **values})


@pytest.mark.parametrize("values", [{"generation": 0}, {"generation": 8}, {"width": 3}])
def test_impossible_links(values: dict[str, int]):
    with pytest.raises(HardwareError):
        Link(**values)


def test_the_link_under_load():
    link = Link(generation=1, width=8, max_generation=4, max_width=16).with_peak()
    assert link.bandwidth == pcie_bandwidth(4, 8)
    known = Bandwidth(1e9, "measured")
    assert Link(4, 16, bandwidth=known).with_peak().bandwidth == known
    assert Link(width=16).with_peak().bandwidth is None
